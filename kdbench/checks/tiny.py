"""Tiny tasks of every kind on embedded digits, with teachers fitted in a moment, to check adapters on."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kdbench.config import INNER, MethodConfig, RunConfig
from kdbench.contract import ANY_TEACHER, Needs, Network, NotApplicable, Rows
from kdbench.data.dataset import Dataset, Transform
from kdbench.data.sources import digits, digits_angle
from kdbench.engine.prepare import Place, Prepared, prepare
from kdbench.engine.task import Keeper, Task, build_network, seeded
from kdbench.engine.teachers import TrainedTeacher
from kdbench.home import Home
from kdbench.registry import MethodRef, method
from kdbench.spec import TaskSpec

KINDS = ("classification", "regression", "crossmodal")
ROWS = 60
BATCH = 16
EPOCHS = 8
DEFAULT_ROLE = "image"
FIT_STEPS = 60
VECTOR_NET = "mlp_w8"
IMAGE_PAIRS = (("convnet_w4", "convnet_w8"), ("convnet_w4", "convnet_w4"), ("resnet8", "resnet14"))
PROFILE_PAIRS = (("convnet1d_w4", "convnet_w8"), ("convnet1d_w4", "convnet_w4"))
"""Student and teacher nets to try in turn: a wider teacher, one of equal widths, one of more depth and a stem."""


@dataclass(frozen=True)
class Tiny:
    """A method on a tiny task.

    Attributes:
        config: the method's defaults with its card's smoke values, the task's specification.
        data: the rows.
        teachers: fitted teachers by role; each :meth:`prepare` works on copies.
    """

    config: RunConfig
    data: Dataset
    teachers: Mapping[str, TrainedTeacher]

    def prepare(self, folder: Path, seed: int = 0) -> Prepared:
        """The method ready to train on the CPU; its run folder and home lie in ``folder``."""
        trained = {role: replace(t, net=copy.deepcopy(t.net)) for role, t in self.teachers.items()}
        place = Place(torch.device("cpu"), Home(folder), None, folder / "run")
        return prepare(self.config, seed, place, self.data, trained)

    def with_batch(self, batch: int) -> Tiny:
        """The same task with batches of another size."""
        train = self.config.task.train.model_copy(update={"batch": batch})
        return replace(self, config=replace(self.config, task=self.config.task.model_copy(update={"train": train})))


def method_config(ref: MethodRef) -> MethodConfig:
    """The method's defaults, its variant's values, then its card's smoke values."""
    values = {**ref.card.defaults(), **(ref.variant.params if ref.variant else {}), **ref.card.smoke}
    inner = None
    if INNER in values and ref.card.hyper_parameters[INNER].kind == "method" and values[INNER] is not None:
        inner = method_config(method(values[INNER]))
    return MethodConfig(ref, {key: ref.card.check(key, value) for key, value in values.items()}, "default", inner)


def tiny(ref: MethodRef, config: MethodConfig, needs: Needs, kind: str) -> Tiny:
    """A tiny task of a kind that the method can run on, its teachers fitted.

    Raises:
        NotApplicable: it refuses every pair of nets; the message is the last reason.
    """
    roles = tuple(role if role != ANY_TEACHER else DEFAULT_ROLE for role in needs.teachers) or (DEFAULT_ROLE,)
    gaps = "present" in needs.batch
    reason = NotApplicable("no pair of nets is there to try")
    for student, teacher in PROFILE_PAIRS if kind == "crossmodal" else IMAGE_PAIRS:
        spec = task_spec(kind, roles, student, teacher, gaps)
        data = replace(rows(kind, roles, gaps), properties=needs.data)
        found = Tiny(RunConfig(config, spec), data, fitted(kind, roles, gaps, student, teacher))
        try:
            with tempfile.TemporaryDirectory() as folder:
                found.prepare(Path(folder))
        except NotApplicable as refused:
            reason = refused
        else:
            return found
    raise reason


def task_spec(kind: str, roles: tuple[str, ...], student: str, teacher: str, gaps: bool) -> TaskSpec:
    """The specification of a tiny task. A teacher of a cross-modal task reads the input of its role's name.

    Args:
        gaps: the last role's input is a vector that some rows lack.
    """
    cross = kind == "crossmodal"
    nets = dict.fromkeys(roles, teacher) | ({roles[-1]: VECTOR_NET} if gaps else {})
    body: dict[str, Any] = {
        "name": f"checks/{kind}",
        "title": f"A tiny {kind} task",
        "version": 1,
        "kind": kind,
        "suite": "checks",
        "ranked": False,
        "unranked_because": "for checking adapters",
        "baseline": "plain",
        "data": {"source": "digits", "augment": ["flip"]},
        "pair": {
            "student": {"net": student, "input": "profiles" if cross else "image"},
            "teachers": {role: {"net": net, "input": role if cross or gaps else "image"} for role, net in nets.items()},
        },
        "train": {"epochs": EPOCHS, "batch": BATCH, "optimizer": {"name": "adam", "lr": 0.01}},
        "score": {"primary": "mae" if kind == "regression" else "top1"},
        "seeds": [0],
    }
    return TaskSpec.model_validate(body)


@functools.cache
def rows(kind: str, roles: tuple[str, ...], gaps: bool) -> Dataset:
    """Digits in colour; a cross-modal student sees the means of their columns and rows, its teachers the images."""
    data = digits_angle.load({"copies": 1}) if kind == "regression" else digits.load({})
    inputs = roles if kind == "crossmodal" else (DEFAULT_ROLE, *(roles if gaps else ()))
    parts = {}
    for name in ("train", "test"):
        held = getattr(data, name)
        grey = held.x["image"][:ROWS]
        x = dict.fromkeys(inputs, torch.cat([grey, grey // 2, grey // 3], dim=1))
        if kind == "crossmodal":
            x["profiles"] = digits.profiles(grey, None)
        if gaps:
            x[roles[-1]] = grey.flatten(1).float()
            x[roles[-1]][::5] = torch.nan
        parts[name] = Rows(x, held.y[:ROWS])
    transforms = dict.fromkeys(inputs, Transform((0.3, 0.15, 0.1), (0.38, 0.19, 0.13))) | {"profiles": digits.PROFILES}
    if gaps:
        transforms[roles[-1]] = Transform((80.0,), (90.0,))
    optional = frozenset(roles[-1:] if gaps else ())
    return replace(
        data, name="checks", train=parts["train"], test=parts["test"], transforms=transforms, optional=optional
    )


@functools.cache
def fitted(kind: str, roles: tuple[str, ...], gaps: bool, student: str, teacher: str) -> Mapping[str, TrainedTeacher]:
    """The teachers of a tiny task, fitted to its training rows."""
    spec, data = task_spec(kind, roles, student, teacher, gaps), rows(kind, roles, gaps)
    nowhere = Path("unused")  # a plain fit keeps nothing
    task = Task(spec, data, torch.device("cpu"), 0, Keeper(nowhere, nowhere, {}))
    found = {}
    for role, entry in spec.pair.teachers.items():
        with seeded(0, "teacher", role), torch.enable_grad():
            net = build_network(entry.net, entry.input, data)
            fit(net, task)
        facts = {"arch": entry.net, "source": "checks"}
        found[role] = TrainedTeacher(role, net.eval().requires_grad_(False), 0.0, facts)
    return found


def fit(net: Network, task: Task) -> None:
    """Fits a network to all training rows: full batches, Adam, a moment."""
    batch = task.wrap(task.rows(torch.arange(task.n_train)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(FIT_STEPS):
        optimizer.zero_grad()
        task.loss(net(batch), batch.y).backward()
        optimizer.step()
