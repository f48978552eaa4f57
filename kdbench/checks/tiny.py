"""Tiny tasks of every kind on embedded digits, with teachers fitted in a moment, to check adapters on."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench import kinds
from kdbench.base.home import Home
from kdbench.contract import ALL_TEACHERS, ANY_TEACHER, Needs, Network, NotApplicable, Rows
from kdbench.data.feed.dataset import Dataset, Symbols, Transform
from kdbench.data.sources import digits
from kdbench.engine.assemble import Prepared, needs_of, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.task import Keeper, Task, build_network, seeded
from kdbench.engine.teachers import TrainedTeacher
from kdbench.kinds.base import Tiny as OfKind
from kdbench.parallel.ranks import Ranks
from kdbench.specs import config
from kdbench.specs.config import MethodConfig, RunConfig
from kdbench.specs.pair import PRUNED, Teacher
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import TaskSpec

TWO_INPUTS = "two inputs"
"""The scene in which teachers read other inputs than the student; the others are named like their kind."""
ROWS = 60
BATCH = 16
EPOCHS = 8
DEFAULT_ROLE, SECOND_ROLE = "image", "audio"
STANDS_FOR = {ANY_TEACHER: (DEFAULT_ROLE,), ALL_TEACHERS: (DEFAULT_ROLE, SECOND_ROLE)}
"""Roles of a tiny task where a method names none."""
VECTOR_NET = "mlp_w16"
CPU = torch.device("cpu")
"""Of a teacher whose input some rows lack; its embedding is as wide as those of the narrow nets."""
SAME_INPUT = (
    ("convnet_w4", "convnet_w8"),
    ("convnet_w4", "convnet_w4"),
    ("resnet8", "resnet14"),
    ("cbam_w4", "cbam_w4"),
)
"""Student and teacher nets to try in turn: a wider teacher, equal widths, more depth and a stem, attention."""
Pair = tuple[str, str, str, bool]
PAIRS: list[Pair] = [*(("image", *nets, False) for nets in SAME_INPUT), ("image", "convnet_w4", "convnet_w8", True)]
"""The student's input, its net, the teachers' net, and whether the student is cut out of the first teacher."""
CROSS_PAIRS: list[Pair] = [
    ("profiles", "convnet1d_w4", "convnet_w8", False),
    ("profiles", "convnet1d_w4", "convnet_w4", False),
    *(("grey", *nets, False) for nets in SAME_INPUT),
]
"""The same for teachers of other inputs."""


@dataclass(frozen=True)
class Setting:
    """What decides a tiny task.

    Attributes:
        roles: of the teachers.
        gaps: the last role's input is a vector that some rows lack.
        cross: student and teachers read different inputs, each teacher the one of its name.
        pruned: the student is the first teacher with channels left out.
        version: which of the kind's tiny tasks.
    """

    kind: str
    roles: tuple[str, ...]
    gaps: bool
    input: str
    student: str
    teacher: str
    cross: bool = False
    pruned: bool = False
    version: int = 0

    @property
    def made(self) -> OfKind:
        """What the kind says of it."""
        return kinds.kind(self.kind).tinies[self.version]


@dataclass(frozen=True)
class Tiny:
    """A method on a tiny task.

    Attributes:
        config: the method's defaults with its card's smoke values, the task's specification.
        data: the rows.
        teachers: fitted teachers by role; a run works on :meth:`copies`, for a method may train its own.
    """

    config: RunConfig
    data: Dataset
    teachers: Mapping[str, TrainedTeacher]

    def prepare(self, folder: Path, seed: int = 0, device: torch.device = CPU, ranks: Ranks | None = None) -> Prepared:
        """The method ready to train, on the CPU unless said otherwise; its run folder and home lie in ``folder``."""
        place = RunPlace(device, Home(folder), None, folder / "run", ranks=ranks or Ranks())
        return prepare(self.config, seed, place, self.data, self.copies(device))

    def copies(self, device: torch.device = CPU) -> dict[str, TrainedTeacher]:
        """The teachers by role, each with a network of its own."""
        return {role: replace(t, net=copy.deepcopy(t.net).to(device)) for role, t in self.teachers.items()}

    def with_batch(self, batch: int) -> Tiny:
        """The same task with batches of another size."""
        train = self.config.task.train.model_copy(update={"batch": batch})
        return replace(self, config=replace(self.config, task=self.config.task.model_copy(update={"train": train})))


def method_config(ref: MethodRef, kind: str | None = None) -> MethodConfig:
    """The method's defaults, those its card has for a kind, its variant's values, then its card's smoke values."""
    own = ref.card.of_kind(kind) if kind else {}
    if ref.variant is not None:
        own |= ref.variant.params
    return config.method_config(ref, own | ref.card.smoke, lambda inner: inner.card.smoke)


def declared(ref: MethodRef) -> list[tuple[str, MethodConfig]]:
    """The tiny tasks that a method says it can run on, each with the hyper-parameters it has there.

    On a kind for which its card has values of their own the method is one with these values alone.
    """
    usual = method_config(ref)
    apart = sorted(
        {entry.when.kind for entry in ref.card.published if entry.when.kind and ref.card.of_kind(entry.when.kind)}
    )
    found = [(scene, usual) for scene in scenes(needs_of(usual)) if scene not in apart]
    for kind in apart:
        own = method_config(ref, kind)
        found += [(scene, own) for scene in scenes(needs_of(own)) if scene == kind]
    return found


def scenes(needs: Needs) -> list[str]:
    """The tiny tasks that a method says it can run on: one a kind, and one on which teachers read other inputs."""
    read = needs.student | needs.teacher | needs.batch
    views = needs.views > 1
    own = {name: kinds.kind(name) for name in kinds.names() if kinds.serves(needs.kinds, name)}
    served = [name for name, kind in own.items() if not read & kind.lacks and not (views and kind.viewless)]
    cross = needs.inputs != "same" and any(kind.tiny.sentences is None for kind in own.values())
    return [*(served if needs.inputs != "other" else []), *([TWO_INPUTS] if cross else [])]


def tiny(ref: MethodRef, chosen: MethodConfig, needs: Needs, scene: str) -> Tiny:
    """A tiny task that the method can run on, its teachers fitted.

    Args:
        scene: one of :func:`scenes`.

    Raises:
        NotApplicable: it refuses every pair of nets; the message is the last reason.
    """
    named = (STANDS_FOR.get(role, (role,)) for role in needs.teachers)
    roles = tuple(dict.fromkeys(role for some in named for role in some)) or (DEFAULT_ROLE,)
    reason = NotApplicable("no pair of nets is there to try")
    cross = scene == TWO_INPUTS
    seen = [name for name in kinds.names() if kinds.serves(needs.kinds, name) and not kinds.kind(name).tiny.sentences]
    kind = seen[0] if cross else scene
    versions = enumerate(kinds.kind(kind).tinies[: 1 if cross else None])
    every = [(number, pair) for number, made in versions for pair in (CROSS_PAIRS if cross else _pairs(made))]
    for version, (own_input, student, teacher, pruned) in every:
        setting = Setting(kind, roles, "present" in needs.batch, own_input, student, teacher, cross, pruned, version)
        data = replace(rows(setting), properties=needs.data)
        tried = Tiny(RunConfig(chosen, task_spec(setting)), data, untrained(setting))
        try:
            with tempfile.TemporaryDirectory() as folder:
                tried.prepare(Path(folder))
        except NotApplicable as refused:
            reason = refused
        else:
            return replace(tried, teachers=fitted(setting))  # fitting takes longer than all refusals before it
    raise reason


def _pairs(made: OfKind) -> Sequence[Pair]:
    """The pairs of nets to try on a tiny task."""
    if made.pairs:
        return [(*pair, False) for pair in made.pairs]
    return [pair for pair in PAIRS if not (pair[-1] and made.wraps)]  # channels are left out of plain nets alone


def task_spec(of: Setting) -> TaskSpec:
    """The specification of a tiny task."""
    nets = dict.fromkeys(of.roles, of.teacher) | ({of.roles[-1]: VECTOR_NET} if of.gaps else {})
    own = of.cross or of.gaps
    made = of.made
    score, seen = made.score, of.input if made.sentences else "image"
    body: dict[str, Any] = {
        "name": f"checks/{of.kind}",
        "title": f"A tiny {of.kind} task",
        "version": 1,
        "kind": of.kind,
        "suite": "checks",
        "ranked": False,
        "unranked_because": "for checking adapters",
        "baseline": "plain",
        "data": {"source": "digits", "augment": [] if made.sentences else ["flip"]},
        "pair": {
            "student": {"net": made.wraps + of.student, "input": of.input}
            | ({"weights": f"{PRUNED}{of.roles[0]}"} if of.pruned else {}),
            "teachers": {role: {"net": made.wraps + net, "input": role if own else seen} for role, net in nets.items()},
        },
        "train": {"epochs": EPOCHS, "batch": BATCH, "optimizer": {"name": "adam", "lr": 0.01}, "loss": made.loss},
        "score": {"primary": score} | ({} if kinds.metrics()[score].unit else {"unit": "digits"}),
        "seeds": [0],
    }
    return TaskSpec.model_validate(body)


@functools.cache
def rows(of: Setting) -> Dataset:
    """Digits in colour; a cross-modal student sees them grey, or the means of their columns and rows alone."""
    data, made = digits.load({}), of.made
    if made.sentences is not None and made.vocabularies is not None:
        train, test = (made.sentences(part.x["image"][:ROWS], part.y[:ROWS]) for part in (data.train, data.test))
        known = made.vocabularies()
        return Dataset("checks", train, test, known["target"].size, {"source": Symbols()}, vocabularies=known)
    colour = set(of.roles) if of.cross else {DEFAULT_ROLE, *(of.roles if of.gaps else ())}
    transforms = dict.fromkeys(colour, Transform((0.3, 0.15, 0.1), (0.38, 0.19, 0.13)))
    transforms |= {"grey": digits.transform("image"), "profiles": digits.transform("profiles")}
    if of.gaps:
        transforms[of.roles[-1]] = Transform((80.0,), (90.0,))
    parts = {}
    for name in ("train", "test"):
        held = getattr(data, name)
        grey = held.x["image"][:ROWS]
        x = dict.fromkeys(sorted(colour), torch.cat([grey, grey // 2, grey // 3], dim=1))
        if of.cross:
            x |= {"grey": grey} if of.input == "grey" else {"profiles": digits.profiles(grey, None)}
        if of.gaps:
            x[of.roles[-1]] = grey.flatten(1).float()
            x[of.roles[-1]][::5] = torch.nan
        parts[name] = Rows(x, made.rows(grey, held.y[:ROWS]))
    train, test, optional = parts["train"], parts["test"], frozenset(of.roles[-1:] if of.gaps else ())
    return replace(
        data, name="checks", train=train, test=test, transforms=transforms, optional=optional, classes=made.classes,
        label_range=made.label_range,
    )  # fmt: skip


@functools.cache
def untrained(of: Setting) -> Mapping[str, TrainedTeacher]:
    """The teachers of a tiny task with their first weights: enough to ask whether a method applies."""
    return {role: _frozen(role, teacher.net, net) for role, (teacher, net) in _first_nets(of).items()}


@functools.cache
def fitted(of: Setting) -> Mapping[str, TrainedTeacher]:
    """The teachers of a tiny task, fitted to its training rows."""
    nowhere = Path("unused")  # a plain fit keeps nothing
    task = Task(task_spec(of), rows(of), torch.device("cpu"), 0, Keeper(nowhere, nowhere, {}))
    found = {}
    for role, (teacher, net) in _first_nets(of).items():
        with seeded(0, "fit", role), torch.enable_grad():
            fit(net, task, of.made.fit_steps)
        found[role] = _frozen(role, teacher.net, net)
    return found


def _first_nets(of: Setting) -> dict[str, tuple[Teacher, Network]]:
    """The teachers of a tiny task by role, and their nets with first weights."""
    found = {}
    for role, teacher in task_spec(of).pair.teachers.items():
        with seeded(0, "teacher", role):
            found[role] = (teacher, build_network(teacher.net, teacher.input, rows(of)))
    return found


def _frozen(role: str, arch: str, net: Network) -> TrainedTeacher:
    return TrainedTeacher(role, net.eval().requires_grad_(False), 0.0, {"arch": arch, "source": "checks"})


def fit(net: Network, task: Task, steps: int) -> None:
    """Fits a network to all training rows: full batches, Adam, a moment."""
    batch = task.as_trained(task.wrap(task.rows(torch.arange(task.n_rows))), torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(net(batch), batch).backward()
        optimizer.step()
