"""A method in a loop of one's own: its terms are the engine's, and what it cannot know it asks for in a line."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from tinies import tiny_of

from kdbench.api.distiller import Distiller
from kdbench.base.errors import UserError
from kdbench.contract import Batch
from kdbench.engine import optim
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Keeper, Task
from kdbench.specs import registry

STEPS = 3
REFUSED = {
    **dict.fromkeys(("ab", "ban", "fsp", "ft", "hsakd", "tf_kd", "smooth_teacher"), "it trains in several stages"),
    **dict.fromkeys(("dlb", "mlkd", "sskd"), "it makes views of pixels before they are augmented"),
    **dict.fromkeys(("brcd", "hash_kd"), "a hashing task makes views of pixels of its own"),
    **dict.fromkeys(
        ("seed", "compress", "spark", "dmae", "tinymim", "h_gkd"),
        "a representation task makes views of pixels of its own",
    ),
    **dict.fromkeys(("crosskd", "defeat", "dkd_roi", "fgd", "kd_dense", "ld", "pkd", "real"), "not Objects;"),
    **dict.fromkeys(("ddkd_obb", "ld_obb"), "not OrientedObjects;"),
    **dict.fromkeys(("cwd", "mgd"), "not Maps;"),
    **dict.fromkeys(("cskd", "fskd_lr"), "it draws a second row for each of a batch"),
    **dict.fromkeys(
        ("dkd_nmt", "gkd", "distillm", "knn_kd", "rdrop", "seq_kd", "word_kd"), "task's rows are sentences, of several"
    ),
    "ccd": "its views are of 8-bit grey or RGB images",
    "cgan_kd": "it trains in several stages", "energykd": "it reads rows of the whole training set",
}  # fmt: skip
"""Methods that no loop but the engine's can run, and why."""
FAST = ("kd", "crd", "reviewkd", "ffsd", "tf_kd", "simkd")
EVERY = [
    pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
    for name, ref in registry.methods().items()
    if ref.variant is None and name != "few_sample"  # its student is cut out of the teacher by the task
]


class InBoth(NamedTuple):
    """A method in the engine, before its first step, and what the same networks and rows are to a distiller."""

    run: StageRun
    words: dict
    spec: object


def in_both(name: str, folder) -> InBoth:
    tiny = tiny_of(name)
    prepared = tiny.prepare(folder)
    spec, task = tiny.config.task, prepared.task
    fresh = Task(spec, prepared.data, task.device, 0, Keeper(folder, folder, {}))
    students = [fresh.build_student() for _ in range(prepared.needs.students)]
    teachers = {role: copy.deepcopy(tiny.teachers[role].net) for role in prepared.teachers}
    run = StageRun(prepared.method, next(prepared.method.stages()), task)
    prepared.method.train()
    x, y = rows(run.loader.draw(0))[:2]
    params = tiny.config.method.plain_params()
    words = {
        "student": students, "teacher": teachers, "example": (x, y), "classes": task.classes, "kind": task.kind,
        "labels": task.train_labels, "epochs": task.epochs, "steps": run.loader.steps, "optimizer": task.optimizer,
        "label_range": task.label_range, "hp": {key: value for key, value in params.items() if key != "inner"},
    }  # fmt: skip
    return InBoth(run, words, spec)


def rows(batch: Batch):
    """Inputs, targets, numbers and masks of a batch's first view."""
    one = batch.view(0) if batch.views > 1 else batch
    return one.x, one.y, one.index, one.present


@pytest.mark.parametrize("name", EVERY)
def test_terms_are_the_engines(name, tmp_path):
    run, words, spec = in_both(name, tmp_path)
    if name in REFUSED:
        with pytest.raises(UserError, match=rf"{name} cannot work in a loop of one's own here: .*{REFUSED[name]}"):
            Distiller(name, **words)
        return
    distiller = Distiller(name, **words)
    own = {group.name: optim.build(group, spec.train.optimizer, run.task.options) for group in distiller.stage.groups}
    for number in range(STEPS):
        expected = run.step()
        x, y, index, present = rows(run.loader.draw(number))
        terms = distiller(x, y, index=index, present=present)
        for optimizer in own.values():
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        for optimizer in own.values():
            optimizer.step()
        distiller.after_step()
        assert {key: float(term.detach()) for key, term in terms.items()} == {
            key: float(value) for key, value in expected.items() if key != "total"
        }


@pytest.fixture
def words(tmp_path):
    return lambda name, **changed: {**in_both(name, tmp_path).words, **changed}


def test_parameters_are_the_students_and_those_of_the_method(words):
    distiller = Distiller("fitnet", **words("fitnet"))
    student = set(distiller.deployed.parameters())
    extra = set(distiller.extra_parameters())
    assert extra
    assert extra.isdisjoint(student)
    assert set(distiller.parameters()) == student | extra
    assert set(Distiller("kd", **words("kd")).extra_parameters()) == set()


def test_a_loop_goes_on_from_its_state(words):
    x, y = (given := words("crd"))["example"]
    index = torch.arange(len(y))
    first, second = (Distiller("crd", **words("crd")) for _ in range(2))
    first(x, y, index=index)
    first.after_step()
    second.load_state_dict(first.state_dict())
    second.step = first.step
    assert given["labels"] is not None
    assert first(x, y, index=index) == second(x, y, index=index)


@pytest.mark.parametrize(
    ("name", "changed", "line"),
    [
        ("crd", {"labels": None}, "crd reads the labels of all training rows; give Distiller labels="),
        ("dml", {"student": []}, "it trains 2 students of one architecture, 0 given; give student= a list of as many"),
        ("kd", {"teacher": None}, "it needs a teacher, the task has none"),
        ("kd", {"hp": {"temprature": 2.0}}, "kd has no hyper-parameter 'temprature'.*temperature"),
        ("kd", {"classes": "3"}, "classes='3': a whole number from 1 on is asked for"),
        ("kd", {"seed": 2**64}, "seed=18446744073709551616: a whole number from 0 to 2147483647"),
        ("dkd", {"epochs": 0}, "epochs=0: a whole number from 1 on or None"),
        ("kd", {"hp": [1]}, r"hp=\[1\]: a mapping of settings"),
        ("kd", {"optimizer": 3}, "optimizer=3: a mapping of settings"),
        ("kd", {"example": None}, r"example: a batch \(x, y\) is asked for"),
        ("kd", {"example": (torch.rand(4, 1, 8, 8), torch.arange(3))}, "example: 4 rows of inputs and 3 targets"),
        ("kd", {"student": "resnet8"}, "the student is a str; give a module"),
        ("crd", {"labels": [0, 1]}, "labels: a tensor of one entry a training row"),
        ("crd", {"labels": torch.tensor([0, 99])}, "labels: whole numbers from 0 to"),
        ("kd", {"kind": "regression"}, "kd cannot work in a loop of one's own here: .*classification"),
    ],
)
def test_what_cannot_work_is_refused(name, changed, line, words):
    with pytest.raises(UserError, match=line):
        Distiller(name, **words(name, **changed))


def test_a_student_that_is_its_own_teacher_is_refused(words):
    given = words("kd")
    (student,) = given["student"]
    with pytest.raises(UserError, match="the student and a teacher are one module"):
        Distiller("kd", **{**given, "teacher": student})


def test_an_unknown_name_names_the_nearest(words):
    with pytest.raises(UserError, match=r"unknown method 'reviewkdd'.*reviewkd"):
        Distiller("reviewkdd", **words("reviewkd"))


def test_what_a_call_lacks_is_asked_for(words):
    given = words("dkd", epochs=None, steps=None)
    x, y = given["example"]
    distiller = Distiller("dkd", **given)
    with pytest.raises(UserError, match=r"weights of dkd follow the epoch: give Distiller epochs= and steps="):
        distiller(x, y)
    early, late = (float(distiller(x, y, epoch=epoch)["dkd"].detach()) for epoch in (0, 9))
    assert late == pytest.approx(10 * early)
    given = words("crd")
    with pytest.raises(UserError, match="this batch: 0 rows of inputs and 0 targets"):
        distiller({name: rows[:0] for name, rows in x.items()}, y[:0], epoch=0)
    with pytest.raises(UserError, match="crd reads index of a batch; call the distiller with index="):
        Distiller("crd", **given)(*given["example"])
    fresh = Distiller("kd", **words("kd"))
    with pytest.raises(UserError, match="after_step"):
        fresh.after_step()
