"""ccl: gradient routes in one backward pass, batches without negatives or modality, extreme scores, refusals."""

from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import TWO_INPUTS, method_config, tiny
from kdbench.contract import At, Batch, Network, NotApplicable, Out
from kdbench.engine.applicability import kind_and_roles
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.methods.ccl.adapter import CCL, Composition, both_ways, bridge, nce, symmetric_kl
from kdbench.specs import registry
from kdbench.specs.config import run_config

CLASSES, WIDTH, ROWS = 4, 6, 8


class Net(Network):
    """A linear embedding and a classifier; ``reads`` names its input."""

    def __init__(self, reads: str, width: int = WIDTH) -> None:
        super().__init__()
        self.input = reads
        self.body, self.fc = torch.nn.Linear(5, width), torch.nn.Linear(width, CLASSES)

    def encode(self, x):
        emb = self.body(x)
        return Out(self.fc(emb), emb=emb)


def make(roles=("audio", "image"), widths=(WIDTH, WIDTH, WIDTH), classes=CLASSES, rows=ROWS, **changes):
    x = {name: torch.randn(ROWS, 5) for name in ("clip", *roles)}
    y = torch.arange(ROWS) % CLASSES
    batch = Batch(x, y, torch.arange(ROWS))
    task = SimpleNamespace(
        classes=classes, loss=lambda out, batch: F.cross_entropy(out.logits, batch.y), probe=lambda net: net(batch),
        train_labels=y, n_train=ROWS, batch=rows, epochs=2, steps=4, gather=lambda rows: rows,
    )  # fmt: skip
    card = registry.card("ccl")
    teachers = {
        role: Net(role, width).requires_grad_(False).eval() for role, width in zip(roles, widths[1:], strict=False)
    }
    method = CCL(task, [Net("clip", widths[0])], teachers, card.typed({**card.defaults(), **changes}))
    return method, batch


def at():
    return At(0, 0, 1, 0.0, torch.Generator().manual_seed(0))


def authors_gradients(method, batch):
    """The authors' passes: composition losses first, the student's gradient cleared, then the student's loss."""
    hp, out = method.hp, method.student(batch)
    weight = hp.several_weight if len(method.taus) > 1 else 1.0
    student, compositions = F.cross_entropy(out.logits, batch.y), []
    for composition, (role, teacher) in zip(method.compositions, method.teachers.items(), strict=True):
        tau = {"audio": hp.audio_tau, "image": hp.tau}[role]
        t = teacher(batch).emb
        c, o = composition(t, out.emb)
        kl = hp.divergence_weight * symmetric_kl(out.logits, o)
        bridged = both_ways(out.emb, c, batch.y, tau)
        student = student + weight * (bridged + both_ways(out.emb, t, batch.y, tau) + kl)
        compositions.append(F.cross_entropy(o, batch.y) + bridged + both_ways(c, t, batch.y, tau) + kl)
    own, learned = list(method.student.parameters()), list(method.compositions.parameters())
    first = torch.autograd.grad(sum(compositions), learned, retain_graph=True)
    second = torch.autograd.grad(student, own + learned)
    return [*second[: len(own)], *(a + b for a, b in zip(first, second[len(own) :], strict=True))]


@pytest.mark.parametrize("roles", [("audio",), ("image",), ("audio", "image")])
def test_one_backward_pass_gives_the_gradients_of_the_authors_passes(roles):
    method, batch = make(roles)
    method.double()
    for teacher in method.teachers.values():
        teacher.double()
    batch = replace(batch, x={name: values.double() for name, values in batch.x.items()})
    expected = authors_gradients(method, batch)
    sum(method.losses(batch, at()).values()).backward()
    parameters = [*method.student.parameters(), *method.compositions.parameters()]
    assert all(torch.allclose(p.grad, e, atol=1e-12) for p, e in zip(parameters, expected, strict=True))
    assert all(p.grad is None for teacher in method.teachers.values() for p in teacher.parameters())


def test_rows_without_a_modality_are_left_out_of_its_terms_alone():
    method, batch = make(("audio",))
    has = torch.tensor([True] * 6 + [False] * 2)
    masked = replace(batch, present={"audio": has})
    terms, part = method.losses(masked, at()), method.losses(batch_of(batch, has), at())
    whole = method.losses(batch, at())
    assert torch.equal(terms["task"], whole["task"])
    for name in set(terms) - {"task"}:
        assert torch.allclose(terms[name], part[name], atol=1e-6)
        assert not torch.allclose(terms[name], whole[name], atol=1e-6)


def batch_of(batch, rows):
    return Batch({name: x[rows] for name, x in batch.x.items()}, batch.y[rows], batch.index[rows])


def test_a_batch_without_a_modality_has_no_terms_of_it_and_does_not_step_its_composition():
    method, batch = make(("audio", "image"))
    terms = method.losses(replace(batch, present={"audio": torch.zeros(ROWS, dtype=torch.bool)}), at())
    sum(terms.values()).backward()
    assert all(p.grad is None for p in method.compositions[0].parameters())
    assert all(p.grad is not None for p in method.compositions[1].parameters())
    alone, batch = make(("audio",))
    terms = alone.losses(replace(batch, present={"audio": torch.zeros(ROWS, dtype=torch.bool)}), at())
    assert set(terms) == {
        "task", "contrast", "divergence", "composed_task", "composed_contrast", "composed_divergence"
    }  # fmt: skip
    assert all(float(term.detach()) == 0 for name, term in terms.items() if name != "task")


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, ROWS, CLASSES)], ids=["one row", "one class"])
def test_a_batch_without_negatives_is_finite_in_value_and_gradient(rows):
    method, batch = make()
    terms = method.losses(batch_of(batch, rows), at())
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_batches_of_one_class_are_told_of_once_where_they_are_to_be_expected():
    with pytest.warns(UserWarning, match=r"about 2 of its batches hold one class alone"):  # 8 batches, 4 classes
        make(rows=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make()


def test_contrast_is_that_of_the_formula():
    u, v, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64), [0, 1, 0, 2, 1]
    p = (F.cosine_similarity(u[:, None], v[None], dim=2) / 0.5).softmax(dim=1)
    total = 0.0
    for i in range(5):
        same = [-(p[i, j] + 1e-10).log() for j in range(5) if y[i] == y[j]]
        other = [-(1 - p[i, j] + 1e-10).log() for j in range(5) if y[i] != y[j]]
        total += sum(same) / len(same) + sum(other) / len(other)
    assert torch.allclose(nce(u, v, torch.tensor(y), 0.5), torch.as_tensor(total / 5), rtol=1e-12)


@pytest.mark.parametrize(("size", "expected"), [(40.0, 40.0), (200.0, 200.0)])
def test_divergence_of_opposite_certainties_is_finite_in_float32(size, expected):
    a = torch.tensor([[size, 0, 0]], requires_grad=True)
    b = torch.tensor([[0, size, 0]], requires_grad=True)
    value = 0.5 * symmetric_kl(a, b)
    value.backward()
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()


def test_zero_embeddings_of_a_teacher_stay_finite():
    y = torch.tensor([0, 1, 0])
    student = torch.randn(3, WIDTH, requires_grad=True)
    logits = torch.randn(3, CLASSES, requires_grad=True)
    terms = bridge(Composition(WIDTH, CLASSES), logits, student, torch.zeros(3, WIDTH), y, 0.1, 0.5)
    sum(terms).backward()
    assert torch.isfinite(student.grad).all()


def test_each_role_has_its_temperature_and_several_share_the_weight():
    method, batch = make(("audio", "image"))
    assert method.taus == [0.5, 0.1]
    one, _ = make(("image",), several_weight=0.1)
    assert one.taus == [0.1]
    terms = method.losses(batch, at())
    whole, _ = make(("audio", "image"), several_weight=1.0)
    whole.load_state_dict(method.state_dict())
    whole.teachers = method.teachers
    assert torch.allclose(2 * terms["contrast"], whole.losses(batch, at())["contrast"])


def test_unequal_widths_are_refused_by_name_unless_a_projection_is_asked_for():
    with pytest.raises(NotApplicable, match=r"width 3, the image teacher's 6.*method\.unequal_widths=project"):
        make(("image",), (3, WIDTH))
    method, batch = make(("image",), (3, WIDTH), unequal_widths="project")
    assert (method.projections[0].in_features, method.projections[0].out_features) == (3, WIDTH)
    student = {id(p) for p in method.groups()[0].params}
    assert all(id(p) in student for p in method.projections.parameters())
    sum(method.losses(batch, at()).values()).backward()
    equal, _ = make(("image",), unequal_widths="project")
    assert not list(equal.projections.parameters())


@pytest.mark.parametrize(
    ("task", "choice"),
    [
        ("digits/profiles", "project"),
        ("av-digits", "project"),
        ("av-digits/from-audio", "project"),
        ("ucf101/features", "project"),
        ("activitynet/features", "project"),
        ("vggsound/features", "project"),
        ("ucf101/audio-r2plus1d", "refuse"),
        ("activitynet/audio-image-r2plus1d", "refuse"),
    ],
)
def test_only_the_tasks_of_unequal_nets_ask_for_the_projection(task, choice):
    assert run_config("ccl", task).method.params["unequal_widths"] == choice


def test_students_and_sound_teachers_of_the_video_tasks_are_equally_wide():
    nets = (models.build("r2plus1d_18", (3, 16, 112, 112), 51), models.build("linear", (512,), 51))
    assert [net.classifier.in_features for net in nets] == [512, 512]


def test_inputs_of_a_composition_are_of_unit_length_unless_told():
    teacher, student = torch.randn(2, 3, WIDTH)
    module = Composition(WIDTH, CLASSES)
    longer = module(teacher, 5 * student)[0]
    assert torch.allclose(module(teacher, student)[0], longer, atol=1e-6)
    assert not torch.allclose(module(2 * teacher, student)[0], longer, atol=1e-6)  # the residual is on the raw one
    module.normalise = False
    assert torch.allclose(module(teacher, student)[0], teacher + module.mlp(torch.cat([teacher, student], dim=1)))


def test_one_class_or_no_teacher_is_refused():
    with pytest.raises(NotApplicable, match="one"):
        make(classes=1)
    no_teacher = registry.task("digits").pair.model_copy(update={"teachers": {}})
    with pytest.raises(NotApplicable, match="needs a teacher"):
        kind_and_roles(CCL.needs(None), registry.task("digits").model_copy(update={"pair": no_teacher}))


def prepared(tmp_path):
    ref = registry.method("ccl")
    config = method_config(ref)
    return tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), TWO_INPUTS)


def test_compositions_keep_their_learning_rate(tmp_path):
    task = prepared(tmp_path)
    spec = task.config.task.model_copy(
        update={
            "train": task.config.task.train.model_copy(
                update={"schedule": run_config("kd", "digits").task.train.schedule}
            )
        }
    )
    ready = replace(task, config=replace(task.config, task=spec)).prepare(tmp_path)
    groups = {group.name: group.schedule for group in ready.method.groups()}
    assert groups == {"student": "task", "compositions": "constant"}
    run = StageRun(ready.method, next(ready.method.stages()), ready.task)
    started = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
    run.step_number = run.total - 1
    run.step()
    ended = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
    assert ended["compositions"] == started["compositions"]
    assert ended["student"] < started["student"]


def test_batches_of_one_row_are_refused(tmp_path):
    ready = prepared(tmp_path).with_batch(1).prepare(tmp_path)
    with pytest.raises(UserError, match="at least 2"):
        StageRun(ready.method, next(ready.method.stages()), ready.task)
