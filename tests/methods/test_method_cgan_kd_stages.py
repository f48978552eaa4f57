"""cgan_kd's stages, and one update of each of its nets: rows, conditions, losses, who gets a gradient, the average.

On made-up pictures, beside a teacher that answers with given features; values are worked out from the equations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from smalls import distinct, network
from torch import Tensor, nn

from kdbench.checks.stubs import Assembled, assembled, batch_of
from kdbench.contract import At, Rows
from kdbench.methods.cgan_kd import adapter, gan
from kdbench.methods.cgan_kd.ratio import ratio_terms

pytestmark = pytest.mark.seam

N, RATE = 12, 0.05
SMALL = {
    "channels": 8, "latent": 3, "gan_batch": 4, "ratio_batch": 5, "ratio_widths": [32, 64], "embed_groups": 4,
    "feature_batch": 6, "gan_steps": 11, "embed_steps": 13, "ratio_steps": 17, "feature_epochs": 19, "d_steps": 2,
    "diffaugment": [], "embed_batch": 4, "inner": None,
    "relabel": False, "ratio_drops": [0.35, 0.7], "embed_drops": [0.55], "ema_decay": 0.75, "ema_start": 3,
}  # fmt: skip
FAKES = {"x": torch.full((4, 1, 8, 8), 7, dtype=torch.uint8), "y": torch.tensor([1, 0, 2, 1])}


def made(name: str = "cgan_kd", kind: str = "classification", **given: Any) -> Assembled:
    """The method with fakes that are there."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    student, teacher = network(0, N), network(10, N)
    teacher.last = nn.Linear(7, 1 if kind == "regression" else 5)
    y = torch.arange(N) % 5 if kind == "classification" else torch.linspace(-1, 1, N) ** 3
    facts: dict[str, Any] = {"kind": kind, "n_train": N, "train_labels": y, "raw_shape": {"image": (1, 8, 8)}}
    if kind == "regression":
        student.out = student.out._replace(logits=student.out.logits[:, 0])
        facts |= {"label_range": (-1.0, 1.0), "classes": 1}
    facts["pixels"] = torch.randint(256, (N, 1, 8, 8), generator=rng, dtype=torch.uint8)
    found = assembled(name, distinct(name, **{**SMALL, **given}), batch_of(y), [student], teacher, **facts)
    found.method.make_fakes = lambda: FAKES
    return found


def at(step: int = 0) -> At:
    return At(step, 0, 0, 0.0, torch.Generator().manual_seed(3))


def groups(stage: Any) -> list[tuple[str, set[nn.Parameter], dict[str, Any], Any]]:
    return [(group.name, set(group.params), dict(group.optimizer), group.schedule) for group in stage.groups]


def trained(net: nn.Module) -> set[nn.Parameter]:
    return {p for p in net.parameters() if p.requires_grad}


GAN = {"ledger": "generator_train", "once": True}


def check_stages(kind: str, features: str, subsample: bool) -> None:
    """The plain student, the generator and what its samples need, each once for a task, and the student on all rows."""
    found = made(kind=kind, features=features, subsample=subsample)
    method: Any = found.method
    hp, stages = method.hp, found.stages()
    student = set(method.students.parameters())
    scalar, own = kind == "regression", features == "own"
    expected = ["vanilla", *["embed-images"] * (scalar and own), *["embed"] * scalar, "gan"]
    expected += [*["features"] * (own and subsample), *["ratio"] * subsample, "mixed"]
    assert list(stages) == expected
    for name, rate in (("vanilla", 1.0), ("mixed", hp.finetune_lr)):
        stage = stages[name]
        assert groups(stage) == [("student", student, {"lr": pytest.approx(rate * RATE)}, "task")]
        assert (stage.epochs, stage.steps, stage.batch, stage.once) == (40, None, None, False)
        assert stage.losses(found.batch, at()).keys() == {"task"}
    assert (stages["vanilla"].ledger, stages["mixed"].ledger) == ("warmup_phase", "distill")
    assert stages["vanilla"].extra is None
    assert torch.equal(stages["mixed"].extra.x["image"], FAKES["x"])
    assert torch.equal(stages["mixed"].extra.y, FAKES["y"])
    adam = {"name": "adam", "lr": hp.gan_lr, "betas": hp.gan_betas, "weight_decay": 0.0}
    nets = [("discriminator", method.gan.discriminator), ("generator", method.gan.generator)]
    assert groups(stages["gan"]) == [(name, set(net.parameters()), adam, "constant") for name, net in nets]
    assert facts(stages["gan"]) == (None, 11, 4, method.gan.step, *GAN.values())
    if scalar:
        settings = {"name": "adam", "lr": hp.embed_lr, "betas": (0.9, 0.999), "weight_decay": 0.0}
        assert groups(stages["embed"]) == [("label_net", set(method.gan.label_net.parameters()), settings, (0.55,))]
        assert facts(stages["embed"]) == (None, 13, None, method.gan.embed_step, *GAN.values())
    sgd = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    for name, net, rate, drops in (
        ("embed-images", method.label_features, 0.01, (0.3, 0.6)),
        ("features", method.own_features, hp.feature_lr, tuple(hp.feature_drops)),
    ):
        if name in stages:
            assert groups(stages[name]) == [("features", trained(net), {**sgd, "lr": rate}, drops)]
            step = stages[name].step
            assert (step.func, step.args, step.keywords) == (method._feature_step, (net,), {})
            assert facts(stages[name]) == (19, None, 6, step, *GAN.values())
    if subsample:
        settings = {"name": "adam", "lr": hp.ratio_lr, "betas": (0.5, 0.999), "weight_decay": 1e-4}
        assert groups(stages["ratio"]) == [("ratio", set(method.ratio.parameters()), settings, (0.35, 0.7))]
        assert facts(stages["ratio"]) == (None, 17, 5, method._ratio_step, *GAN.values())


def facts(stage: Any) -> tuple[Any, ...]:
    assert stage.losses is None
    return stage.epochs, stage.steps, stage.batch, stage.step, stage.ledger, stage.once


KINDS = [
    (kind, features, subsample) for features in ("teacher", "own") for kind in ("classification", "regression")
    for subsample in (True, False)
]  # fmt: skip
"""Kind, features, subsampling; those with nets of their own, which are slow to build, last."""


@pytest.mark.parametrize(("kind", "features", "subsample"), KINDS)
def test_stages(kind, features, subsample):
    check_stages(kind, features, subsample)


def check_sgd_of_the_label_net() -> None:
    (group,) = made(kind="regression", embed_optimizer="sgd").stages()["embed"].groups
    rate = distinct("cgan_kd", **SMALL)["embed_lr"]
    assert dict(group.optimizer) == {
        "name": "sgd", "lr": rate, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False,
    }  # fmt: skip


def check_fakes_that_are_there() -> None:
    """Another run's fakes, made under the same hyper-parameters of the generator, leave its stages without a step."""
    found = made()
    asked: list[Any] = []

    def recall(name: str, ledger: str = "generate", uses: Any = None) -> dict[str, Tensor]:
        asked.append((name, set(uses)))
        return FAKES

    found.method.task.recall, found.method.task.keep = recall, None
    lengths = {stage.name: (stage.epochs, stage.steps, stage.once) for stage in found.method.stages()}
    assert lengths == {
        "vanilla": (40, None, False), "gan": (None, 0, True), "ratio": (None, 0, True), "mixed": (40, None, False),
    }  # fmt: skip
    decided = set(vars(found.method.hp)) - {"inner", "finetune_lr"}
    assert asked == [("fakes", decided)]


def check_epochs_of_fakes_that_are_there() -> None:
    """A stage counted in epochs has no step either."""
    found = made(features="own")
    found.method.task.recall = lambda *given, **more: FAKES
    lengths = {stage.name: (stage.epochs, stage.steps) for stage in found.method.stages()}
    assert lengths["features"] == (None, 0)


def check_fakes_are_kept() -> None:
    """Made fakes are kept for the task, under the same hyper-parameters."""
    found, asked = made(), []

    def keep(name: str, make: Callable[[], Any], scope: str = "run", uses: Any = None) -> Any:
        asked.append((name, scope, set(uses)))
        return make()

    found.method.task.keep = keep
    list(found.method.stages())
    assert asked == [("fakes", "task", set(vars(found.method.hp)) - {"inner", "finetune_lr"})]


def check_inner_method() -> None:
    """The inner method's stages have the fakes beside its own rows, at the last stage's rate where it is the task's."""
    found = made("cgan_kd+kd", inner="kd")
    method: Any = found.method
    extended: list[Rows] = []
    plain = method.task.extend
    method.task.extend = lambda rows: extended.append(rows) or plain(rows)
    at_once = None
    for stage in method.stages():
        if stage.name == "vanilla":
            assert method.deployed is method.student
            method.after_step(found.batch, at())
        at_once = stage
    inner = method.inner_method
    assert at_once.name == "mixed-distill"
    assert at_once.losses == inner.losses
    assert (inner.student, inner.teachers) == (method.student, method.teachers)
    assert method.deployed is inner.deployed
    assert torch.equal(at_once.extra.x["image"], FAKES["x"])
    assert torch.equal(extended[0].y, FAKES["y"])
    assert groups(at_once) == [
        ("student", set(method.student.parameters()), {"lr": pytest.approx(method.hp.finetune_lr * RATE)}, "task")
    ]
    asked = []
    inner.after_step = lambda *given: asked.append(given)
    method.after_step(found.batch, None)
    assert asked == [(found.batch, None)]


def check_inner_method_without_a_teacher() -> None:
    """It is given none."""
    found = made(inner="plain")
    found.stages()
    assert found.method.inner_method.teachers == {}


def check_groups_of_an_inner_method() -> None:
    """A group with the task's optimiser is slowed, from its own rate if it has one; another optimiser's is not."""
    from kdbench.contract import Group

    method: Any = made().method
    slow = partial(pytest.approx, rel=1e-9)
    for own, expected in (
        ({}, {"lr": slow(method.hp.finetune_lr * RATE)}),
        ({"lr": 0.3, "weight_decay": 1.0}, {"lr": slow(method.hp.finetune_lr * 0.3), "weight_decay": 1.0}),
        ({"name": "sgd", "lr": 0.3}, {"name": "sgd", "lr": slow(method.hp.finetune_lr * 0.3)}),
        ({"name": "adam", "lr": 0.3}, {"name": "adam", "lr": 0.3}),
        ({"name": "adam"}, {"name": "adam"}),
    ):
        group = method._slowed(Group("some", [], own, "constant"))
        assert (group.name, dict(group.optimizer), group.schedule) == ("some", expected, "constant")


def check_rows_of_both() -> None:
    """An inner method with extra rows of its own keeps them, behind the fakes."""
    found = made("cgan_kd+kd", inner="kd")
    more = Rows({"image": FAKES["x"][:1] + 1}, FAKES["y"][:1])
    method: Any = found.method
    build = type(method.hp.inner).build

    class Extra:
        def __init__(self, method: Any) -> None:
            self.method, self.deployed = method, method.deployed

        def stages(self) -> Any:
            from dataclasses import replace

            yield from (replace(stage, extra=more) for stage in self.method.stages())

    inner = method.hp.inner
    inner.build = lambda *given: Extra(build(inner, *given))
    last = found.stages()["mixed-distill"]
    assert last.extra.y.tolist() == [*FAKES["y"].tolist(), 1]
    assert last.extra.x["image"][-1].unique().tolist() == [8]


def check_plain_losses() -> None:
    """The task's own loss of the student."""
    found = made()
    for name in ("vanilla", "mixed"):
        terms = found.stages()[name].losses(found.batch, at())
        expected = F.cross_entropy(found.method.student.out.logits[found.batch.index], found.batch.y)
        assert terms["task"].item() == pytest.approx(expected.item(), rel=1e-5)


class Updates:
    """Notes what an update is asked for: the group, the loss, and what the loss gives a gradient."""

    def __init__(self, **nets: nn.Module) -> None:
        self.nets, self.seen = nets, []

    def __call__(self, loss: Tensor, group: str) -> None:
        parameters = {name: [p for p in net.parameters() if p.requires_grad] for name, net in self.nets.items()}
        every = [p for some in parameters.values() for p in some]
        grads = dict(zip(every, torch.autograd.grad(loss, every, allow_unused=True), strict=True))
        reached = {name for name, some in parameters.items() if any(grads[p] is not None for p in some)}
        self.seen.append((group, loss.item(), reached))


def check_gan_step(kind: str) -> None:
    """Two updates of the discriminator on weighted real and fake rows, one of the generator, then the average."""
    found = made(kind=kind)
    net: Any = found.method.gan
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    net.discriminator.register_forward_hook(lambda _, given, scores: seen.append((*given, scores)))
    made_rows: list[gan.DRows] = []
    d_rows = net.d_rows

    def weighted(n: int, rng: torch.Generator) -> gan.DRows:
        rows = d_rows(n, rng)
        made_rows.append(rows._replace(real_weight=torch.rand(n) + 0.5, fake_weight=torch.rand(n) + 0.5))
        return made_rows[-1]

    net.d_rows = weighted
    updates = Updates(discriminator=net.discriminator, generator=net.generator)
    before = {key: value.clone() for key, value in net.average.state_dict().items()}
    with torch.no_grad():
        for p in net.generator.parameters():
            p += 0.25
    terms = net.step(None, at(step=3), updates)
    assert [(group, reached) for group, _, reached in updates.seen] == [
        ("discriminator", {"discriminator"}), ("discriminator", {"discriminator"}), ("generator", {"generator"}),
    ]  # fmt: skip
    for rows, (images, told, scores), (_, loss, _) in zip(made_rows, seen, updates.seen, strict=False):
        assert torch.equal(images[:4], gan.to_unit(net.raw(rows.real)))
        assert images[4:].abs().max() <= 1
        assert torch.equal(told, torch.cat([rows.real_condition, rows.fake_condition]))
        real, fake = scores[:4], scores[4:]
        expected = (rows.real_weight * F.relu(1 - real)).mean() + (rows.fake_weight * F.relu(1 + fake)).mean()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert updates.seen[-1][1] == pytest.approx(-seen[-1][2].mean().item(), rel=1e-5)
    assert len(seen[-1][2]) == 4
    assert {name: value.item() for name, value in terms.items()} == {
        "discriminator": updates.seen[1][1], "generator": updates.seen[2][1],
    }  # fmt: skip
    assert all(p.requires_grad for p in net.discriminator.parameters())
    for key, mean in net.average.state_dict().items():
        value = net.generator.state_dict()[key]
        expected = 0.75 * before[key] + 0.25 * value if mean.is_floating_point() else value
        assert torch.allclose(mean, expected, atol=1e-6), key
    net.step(None, at(step=2), updates)  # the average starts at step 3 and is the generator before
    for key, mean in net.average.state_dict().items():
        assert torch.equal(mean, net.generator.state_dict()[key]), key


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_gan_step(kind):
    check_gan_step(kind)


def check_gan_draws(kind: str) -> None:
    """What a step draws is of its generator, and its images are augmented before the discriminator, real and fake."""
    values = []
    for seed in (1, 2):
        found = made(kind=kind, diffaugment=["brightness"])
        state = {key: torch.ones_like(value) * 0.05 for key, value in found.method.gan.state_dict().items()}
        found.method.gan.load_state_dict(state, strict=False)
        torch.manual_seed(seed)
        updates = Updates()
        found.method.gan.step(None, at(), lambda loss, group, to=updates: to.seen.append(loss.item()))
        values.append(updates.seen)
    assert values[0] == values[1]


def check_augmentation() -> None:
    """Real and fake rows go through the augmentation in every update, with the settings asked for."""
    found, asked = made(diffaugment=["brightness"]), []
    own = gan.augment
    gan.augment = lambda images, kinds, rng: asked.append((len(images), tuple(kinds))) or own(images, kinds, rng)
    try:
        found.method.gan.step(None, at(), lambda loss, group: None)
    finally:
        gan.augment = own
    assert asked == [(8, ("brightness",)), (8, ("brightness",)), (4, ("brightness",))]


def check_vanilla_gan() -> None:
    """The other loss of the two."""
    found = made(gan_loss="vanilla")
    net: Any = found.method.gan
    seen: list[Tensor] = []
    net.discriminator.register_forward_hook(lambda _, given, scores: seen.append(scores))
    losses: list[float] = []
    net.step(None, at(), lambda loss, group: losses.append(loss.item()))
    real, fake = seen[0][:4], seen[0][4:]
    assert losses[0] == pytest.approx((F.softplus(-real).mean() + F.softplus(fake).mean()).item(), rel=1e-5)
    assert losses[-1] == pytest.approx(F.softplus(-seen[-1]).mean().item(), rel=1e-5)


def check_ratio_step(kind: str) -> None:
    """Real rows and fakes of the same labels, their features constants; one update by loss and penalty."""
    found = made(kind=kind)
    method: Any = found.method
    nn.init.constant_(method.ratio.main[-2].bias, 2.0)  # ratios above 0, as behind its last layer they must be
    method.ratio.eval()
    asked: list[Tensor] = []
    method.phi = lambda raw: asked.append(raw) or torch.arange(float(len(raw)))[:, None].expand(-1, 7) + len(asked)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    method.ratio.register_forward_hook(lambda _, given, ratio: seen.append((*given, ratio)))
    updates = Updates(ratio=method.ratio)
    terms = method._ratio_step(None, at(), updates)
    rng = at().rng
    index = method.gan.ratio_rows(5, rng)
    labels = method.gan.labels(index)
    fakes = method.gan.sample(labels, rng)
    assert torch.equal(asked[0], method.task.pixels[index])
    assert torch.equal(asked[1], fakes)
    (real, told, r_real), (fake, also_told, r_fake) = seen
    assert torch.equal(real + 1, fake)
    assert torch.equal(told, method.gan.condition(labels))
    assert torch.equal(told, also_told)
    wanted = ratio_terms(r_real, r_fake, method.hp.ratio_penalty)
    assert {name: value.item() for name, value in terms.items()} == {n: v.item() for n, v in wanted.items()}
    ((group, loss, reached),) = updates.seen
    assert (group, reached) == ("ratio", {"ratio"})
    assert loss == pytest.approx((wanted["softplus"] + wanted["penalty"]).item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_ratio_step(kind):
    check_ratio_step(kind)


def check_feature_step() -> None:
    """Rows drawn uniformly by the step's generator, as pixels in [-1, 1], with their labels."""
    method: Any = made(kind="regression").method
    asked: list[tuple[Tensor, Tensor]] = []

    class Net(nn.Linear):
        def loss(self, images: Tensor, labels: Tensor) -> Tensor:
            asked.append((images, labels))
            return self.weight.sum() * 3

    net = Net(1, 1)
    updates = Updates(features=net)
    terms = method._feature_step(net, None, at(), updates)
    index = torch.randint(N, (6,), generator=at().rng)
    assert torch.equal(asked[0][0], gan.to_unit(method.task.pixels[index]))
    assert torch.equal(asked[0][1], method.gan.labels(index))
    expected = 3 * net.weight.item()
    assert {name: value.item() for name, value in terms.items()} == {"features": pytest.approx(expected)}
    assert updates.seen == [("features", pytest.approx(expected), {"features"})]


def check_embed_step(batch: int) -> None:
    """The label net is to be inverted by the frozen map back, at distinct labels with noise within [0, 1]."""
    found = made(kind="regression", embed_batch=batch)
    net: Any = found.method.gan
    asked: list[Tensor] = []
    net.label_net.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    updates = Updates(label_net=net.label_net)
    terms = net.embed_step(None, at(), updates)
    rng, labels = at().rng, net.distinct
    if len(labels) > batch:
        labels = labels[torch.randint(len(labels), (batch,), generator=rng)]
    noise = 0.2 * torch.randn(len(labels), generator=rng)
    labels = (labels + noise).clamp(0, 1)
    assert torch.allclose(asked[0], labels)
    expected = ((net.back(net.label_net(labels)) - labels) ** 2).mean().item()
    assert terms["embedding"].item() == pytest.approx(expected, rel=1e-5)
    assert updates.seen == [("label_net", pytest.approx(expected, rel=1e-5), {"label_net"})]


@pytest.mark.parametrize("batch", [4, N, N + 1])
def test_embed_step(batch):
    check_embed_step(batch)


CHECKS: dict[str, list[Callable[[], None]]] = {
    "cgan_kd": [
        *(partial(check_stages, *key) for key in KINDS[:4]), check_sgd_of_the_label_net, check_fakes_that_are_there,
        check_fakes_are_kept, check_inner_method, check_inner_method_without_a_teacher,
        check_groups_of_an_inner_method, check_rows_of_both,
        check_plain_losses, check_vanilla_gan, check_augmentation, check_feature_step,
        *(partial(check, kind) for check in (check_gan_step, check_gan_draws, check_ratio_step)
          for kind in ("classification", "regression")),
        *(partial(check_embed_step, batch) for batch in (4, N, N + 1)),
        *(partial(check_stages, *key) for key in KINDS[4:]), check_epochs_of_fakes_that_are_there,
    ]
}  # fmt: skip
"""All checks of the method."""


@pytest.mark.parametrize("check", [check for check in CHECKS["cgan_kd"] if not isinstance(check, partial)])
def test_checks(check):
    check()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_gan_draws(kind):
    check_gan_draws(kind)


def test_the_rest_has_no_inner_method():
    assert made().method.inner_method is None
    assert {"classification", "regression"} == adapter.OWN_KINDS
