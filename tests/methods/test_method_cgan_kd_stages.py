"""cgan_kd's stages: which there are, on which rows, who is trained in them, and what an inner method makes of them.

On made-up pictures, beside a teacher that answers with given features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pictured import FAKES, RATE, SMALL, at, made
from smalls import distinct
from torch import Tensor, nn

from kdbench.contract import Rows
from kdbench.methods.cgan_kd import adapter

pytestmark = pytest.mark.seam


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


CHECKS: list[Callable[[], None]] = [
    *(partial(check_stages, *key) for key in KINDS), check_sgd_of_the_label_net, check_fakes_that_are_there,
    check_fakes_are_kept, check_inner_method, check_inner_method_without_a_teacher,
    check_groups_of_an_inner_method, check_rows_of_both, check_epochs_of_fakes_that_are_there,
]  # fmt: skip
"""Of the stages, which planted faults are held against."""


@pytest.mark.parametrize("check", [check for check in CHECKS if not isinstance(check, partial)])
def test_checks(check):
    check()


def test_the_rest_has_no_inner_method():
    assert made().method.inner_method is None
    assert {"classification", "regression"} == adapter.OWN_KINDS
