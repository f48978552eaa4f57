"""The stages of every method: their order and length, what each trains, with which losses, optimiser and schedule.

The tables are written from the papers and sheets, for a task of 40 epochs of 5 steps at a learning rate of 0.05.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from smalls import ELSEWHERE, small
from torch import nn

from kdbench.contract import Group, Method, Stage, Views
from kdbench.specs import registry

pytestmark = pytest.mark.seam

EPOCHS = 40
Table = Callable[[Any], list[Stage]]


def own(method: Method, *names: str) -> list[nn.Parameter]:
    """Trainable parameters of the modules of these names."""
    found = [p for name, p in method.named_parameters() if name.startswith(names) and p.requires_grad]
    assert all(any(name.startswith(one) for name, _ in method.named_parameters()) for one in names), names
    return found


def one(method: Any, *names: str, name: str = "student", losses: Any = None, **more: Any) -> Stage:
    """The one stage most methods have: all of the task's epochs at its optimiser and schedule."""
    return Stage("distill", [Group(name, own(method, *names))], losses or method.losses, epochs=EPOCHS, **more)


def first(method: Any, name: str, *modules: str, losses: Any, epochs: int, group: dict[str, Any], **more: Any) -> Stage:
    """A stage before it."""
    return Stage(name, [Group(params=own(method, *modules), **group)], losses, epochs=epochs, **more)


def initialised(method: Any, epochs: int = 5) -> list[Stage]:
    """30 of 240 epochs at the constant base rate: an eighth, and at least one epoch."""
    modules = [name for name, _ in method.named_children()]
    group = {"name": "student", "schedule": "constant"}
    more = {"losses": method.first_losses, "epochs": epochs, "group": group, "ledger": "warmup_phase"}
    return [first(method, "initialise", *modules, **more), one(method, "students")]


def ft(method: Any) -> list[Stage]:
    group = {"name": "paraphraser", "optimizer": {"lr": method.hp.paraphraser_lr}, "schedule": "constant"}
    more = {"epochs": 5, "group": group, "ledger": "warmup_phase", "once": True}
    return [
        first(method, "paraphrase", "paraphraser", losses=method.reconstruction, **more),
        one(method, "students", "translator"),
    ]


def sskd(method: Any) -> list[Stage]:
    group = {"name": "head", "schedule": (0.5, 0.75)}
    more = {"epochs": 10, "group": group, "views": method.views, "ledger": "warmup_phase", "once": True}
    return [
        first(method, "teacher_head", "teacher_head", losses=method.head_losses, **more),
        one(method, "students", "student_head", views=method.views),
    ]


def hsakd(method: Any, name: str = "frozen", epochs: int = 17, taught: Any = ("heads.1",), **group: Any) -> list[Stage]:
    more = {"epochs": epochs, "views": method.views, "ledger": "teacher_train", "once": True}
    group = {"name": "teacher", **group}
    return [
        first(method, f"teacher_{name}", *taught, losses=method.teacher_losses, group=group, **more),
        one(method, "students", "heads.0", views=method.views),
    ]


def ccl(method: Any) -> list[Stage]:
    compositions = Group("compositions", own(method, "compositions"), schedule="constant")
    networks = own(method, "students", *(["projections"] if method.hp.unequal_widths == "project" else []))
    return [Stage("distill", [Group("student", networks), compositions], method.losses, epochs=EPOCHS)]


def ffsd(method: Any) -> list[Stage]:
    adam = {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}
    groups = [
        Group("networks", own(method, "students", "expansion")),
        Group("fusion", own(method, "fusion"), {"weight_decay": 1e-5}),
        Group("guides", own(method, "guides"), adam),
    ]
    return [Stage("distill", groups, method.losses, epochs=EPOCHS)]


def ban(method: Any, generations: int = 3) -> list[Stage]:
    """The deployed network, students[0], is born last, from the one before it."""
    line = [*range(1, generations + 1), 0]
    nets = list(method.students)
    losses = [partial(method.first_losses, nets[line[0]])]
    losses += [partial(method.taught_losses, nets[child], nets[parent]) for parent, child in pairwise(line)]
    return [
        Stage(
            f"generation_{born}", [Group("student", own(method, f"students.{net}"))], loss, epochs=EPOCHS,
            ledger="teacher_train" if net else "distill",
        )
        for born, (net, loss) in enumerate(zip(line, losses, strict=True))
    ]  # fmt: skip


def tf_kd(method: Any) -> list[Stage]:
    group = {"name": "teacher"}
    more = {"losses": method.teacher_losses, "epochs": EPOCHS, "ledger": "teacher_train", "once": True}
    return [first(method, "teacher", "students.1", group=group, **more), one(method, "students.0")]


def stretched(method: Any) -> list[Stage]:
    return [Stage("distill", [Group("student", own(method, "students"))], method.losses, steps=260)]


def rakd(method: Any) -> list[Stage]:
    """The discriminator has an optimiser of its own, in the same steps."""
    student = Group("student", own(method, "students", "projection"))
    judge = Group(
        "discriminator", own(method, "discriminator"), optimizer={"name": "adam", "lr": 0.3}, schedule="constant"
    )
    return [Stage("distill", [student, judge], method.losses, epochs=EPOCHS)]


def everything(method: Any) -> list[Stage]:
    return [one(method, "")]


def viewed(method: Any) -> list[Stage]:
    return [one(method, "", views=method.views)]


TABLES: dict[tuple[str, tuple[tuple[str, Any], ...]], Table] = {
    ("ab", (("first_phase", 0.125),)): initialised,
    ("fsp", (("first_phase", 0.125),)): initialised,
    ("fsp", (("first_phase", 0.001),)): partial(initialised, epochs=1),
    ("ft", (("first_phase", 0.125), ("paraphraser_lr", 0.3))): ft,
    ("sskd", (("head_phase", 0.25),)): sskd,
    ("hsakd", (("frozen_phase", 0.4166),)): partial(hsakd, schedule=(0.3, 0.6, 0.9)),
    ("hsakd-joint", (("frozen_phase", 0.4166),)): partial(
        hsakd, name="joint", epochs=EPOCHS, taught=("heads.1", "taught.net")
    ),
    ("hsakd-online", ()): lambda m: [one(m, "students", "heads", name="peers", losses=m.peer_losses, views=m.views)],
    ("ccl", ()): ccl,
    ("ccl", (("unequal_widths", "project"),)): ccl,
    ("ffsd", ()): ffsd,
    ("ban", ()): ban,
    ("ban", (("generations", 1),)): partial(ban, generations=1),
    ("tf_kd", ()): tf_kd,
    ("tf_kd-reg", ()): lambda m: [one(m, "students")],
    ("dml", ()): lambda m: [one(m, "students", name="peers")],
    ("dml-4", ()): lambda m: [one(m, "students", name="peers")],
    ("simkd", ()): lambda m: [one(m, "net", "students")],
    ("plain", (("length", 1.3),)): stretched,
    ("plain", (("length", 1e-4),)): lambda m: [
        Stage("distill", [Group("student", own(m, "students"))], m.losses, steps=1)
    ],
    ("plain", (("length", 1.0),)): everything,
    ("ccd", ()): viewed,
    ("crd+jda", ()): lambda m: [one(m.inner, "", views=m.views)],
    ("mlkd", ()): viewed,
    ("dlb", ()): viewed,
    ("cskd", ()): lambda m: [one(m, "", partners=m.partners)],
    ("fskd_lr", ()): lambda m: [one(m, "", partners=m.partners)],
    ("rakd", (("discriminator_lr", 0.3),)): rakd,
    **{
        (name, ()): everything
        for name in (
            "at", "cc", "crd", "dist", "dkd", "energykd", "fitnet", "hkd", "kd", "lskd", "nkd", "nst", "ofd", "pkt",
            "reviewkd", "rkd", "sp", "vid", "byot",
            "pskd", "lwr", "introspective", "isrd", "askd",
        )
    },
}  # fmt: skip
"""Method and hyper-parameters to its stages."""


def described(stages: Iterable[Stage]) -> list[dict[str, Any]]:
    """Stages as plain values, parameters by what they are."""
    return [
        {
            "name": stage.name,
            "losses": _function(stage.losses),
            "step": _function(stage.step),
            "epochs": stage.epochs,
            "steps": stage.steps,
            "batch": stage.batch,
            "extra": stage.extra,
            "partners": stage.partners,
            "views": None if stage.views is None else (stage.views.n, stage.views.where, stage.views.replaces),
            "ledger": stage.ledger,
            "once": stage.once,
            "groups": [
                (group.name, sorted(map(id, group.params)), dict(group.optimizer), group.schedule)
                for group in stage.groups
            ],
        }
        for stage in stages
    ]


def _function(function: Any) -> Any:
    """What a bound method or a partial of one stands for."""
    if isinstance(function, partial):
        return _function(function.func), tuple(map(id, function.args)), function.keywords
    return None if function is None else (id(function.__self__), function.__func__)


def check_stages(name: str, given: tuple[tuple[str, Any], ...]) -> None:
    """The stages of a method are those of its table, and every parameter is trained by one of them or is constant."""
    made = small(name, **dict(given))
    wanted = TABLES[name, given](made.method)
    found = list(made.method.stages())
    assert described(found) == described(wanted)
    for stage in found:
        ids = [id(p) for group in stage.groups for p in group.params]
        assert len(ids) == len(set(ids)), f"{stage.name} trains a parameter twice"


@pytest.mark.parametrize(("name", "given"), TABLES)
def test_stages(name, given):
    check_stages(name, given)


def test_every_method_is_in_a_table():
    """Or in a file of its own."""
    assert {registry.method(name).card.name for name, _ in TABLES} | ELSEWHERE.keys() == set(registry.method_packages())


VIEWS = {
    "sskd": (4, "raw", ("flip",)),
    "hsakd": (4, "final", ()),
    "mlkd": (2, "raw", ()),
    "ccd": (2, "raw", ()),
    "dlb": (2, "raw", ()),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    views: Views = small(name).method.views
    assert (views.n, views.where, views.replaces) == VIEWS[name]


REUSED = {
    ("sskd", "teacher_head"): ("warmup_phase", {"head_phase"}),
    ("hsakd", "teacher_frozen"): ("teacher_train", {"teacher_stage", "frozen_phase"}),
    ("hsakd-joint", "teacher_joint"): ("teacher_train", {"teacher_stage", "frozen_phase"}),
    ("tf_kd", "teacher"): ("teacher_train", set()),
    ("energykd", "energies"): ("teacher_cache", {"energy_temperature", "low_share", "high_share"}),
}
"""What other runs of a task reuse: ledger line, and the hyper-parameters that decide it."""


def check_reuse(name: str, artefact: str) -> None:
    """An artefact is kept for the task, under exactly the hyper-parameters that decide it, and found again."""
    made = small(name)
    asked: list[tuple[str, str, frozenset[str], str]] = []
    plain = made.method.task.keep

    def keep(kept, make, scope="run", ledger="generate", uses=None):
        asked.append((kept, ledger, frozenset(uses), scope))
        return plain(kept, make)

    def recall(kept, ledger="generate", uses=None):
        asked.append((kept, ledger, frozenset(uses), "task"))

    made.method.task.keep, made.method.task.recall = keep, recall
    list(made.method.stages())
    ledger, uses = REUSED[name, artefact]
    assert asked
    assert set(asked) == {(artefact, ledger, frozenset(uses), "task")}


def check_found(name: str, artefact: str) -> None:
    """What another run has made is taken over, and the stage that makes it is left out of this one."""
    made = small(name)
    wanted = {stage.name: stage for stage in small(name).method.stages()}[artefact]
    modules = {"teacher_head": "teacher_head", "teacher": "students.1"}
    module = made.method.get_submodule(modules.get(artefact, "taught"))
    other = {key: value + 1 for key, value in module.state_dict().items()}
    made.method.task.recall = lambda *given: other
    made.method.task.keep = None
    (stage, *_) = made.method.stages()
    assert (stage.name, stage.once, stage.steps, stage.epochs) == (artefact, True, 0, None)
    assert (stage.ledger, len(stage.groups)) == (wanted.ledger, len(wanted.groups))
    assert all(torch.equal(value, other[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(("name", "artefact"), [key for key in REUSED if key[1] != "energies"])
def test_what_other_runs_have_made(name, artefact):
    check_found(name, artefact)


@pytest.mark.parametrize(("name", "artefact"), REUSED)
def test_what_other_runs_reuse(name, artefact):
    check_reuse(name, artefact)


HELD = {"ban": [[], [1], [1, 2], [1, 2, 3]], "tf_kd": [[], [1]], "tf_kd-reg": [[]]}
"""Students that are in eval mode during each stage, whatever mode the engine sets: they teach."""


def check_held(name: str) -> None:
    """The students that teach in a stage are held in eval mode, and no others."""
    made = small(name)
    held = []
    for _ in made.method.stages():
        made.method.train()
        held.append([i for i, net in enumerate(made.method.students) if not net.training])
    assert held == HELD[name]


@pytest.mark.parametrize("name", HELD)
def test_students_that_teach_are_held(name):
    check_held(name)


def check_inner() -> None:
    """An inner method is given the networks, and the steps."""
    made = small("crd+jda")
    inner: Any = made.method.inner
    assert inner.student is made.method.student
    assert inner.teacher is made.method.teacher
    asked = []
    inner.after_step = lambda *given: asked.append(given)
    at = made.at(0)
    made.method.after_step(made.batch, at)
    assert asked == [(made.batch, at)]
    assert torch.equal(asked[0][0].y, made.batch.y)


def test_an_inner_method_is_given_the_networks_and_the_steps():
    check_inner()


CHECKS: dict[str, list[Callable[[], None]]] = {"ccd": [check_inner]}
"""Further checks of a method."""
