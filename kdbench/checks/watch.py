"""Watches a method while the engine trains it: its terms, gradients and teachers, without touching either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Stage, Update
from kdbench.engine.assemble import Prepared

MAX_STEPS = 48
"""Longest stage a check trains."""


class Violation(Exception):
    """The method breaks a rule of the contract in a way that training cannot survive."""


class Interrupted(Exception):
    """Training was stopped on purpose."""


@dataclass
class Seen:
    """What was seen of a run.

    Attributes:
        terms: (stage, step) to the exact values of the terms logged there.
        lengths: number of steps of each stage, in order.
        declared: every parameter of a group, with a name for it.
        reached: parameters that got a gradient while their group was updated.
        moved: those of them whose gradient was not all zeros at some step.
        teacher_modes: teacher modules found in the wrong mode.
        trained_teachers: teacher parameters found in a group, with stage and group.
    """

    terms: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    declared: dict[nn.Parameter, str] = field(default_factory=dict)
    reached: set[nn.Parameter] = field(default_factory=set)
    moved: set[nn.Parameter] = field(default_factory=set)
    teacher_modes: set[str] = field(default_factory=set)
    trained_teachers: list[str] = field(default_factory=list)


class WatchedStages:
    """Replaces the stages of a prepared method by watched ones, no longer than :data:`MAX_STEPS`.

    Args:
        prepared: the method; it stays the one that trains.
        stop_at: (stage number, step) at which to raise :class:`Interrupted`; None never.
    """

    def __init__(self, prepared: Prepared, stop_at: tuple[int, int] | None = None) -> None:
        self.seen = Seen()
        self._prepared, self._stop_at = prepared, stop_at
        self._method = prepared.method
        self._groups: dict[str, list[nn.Parameter]] = {}
        self._names = {id(p): name for name, p in self._method.named_parameters()}
        self._stages, self._after = self._method.stages, self._method.after_step
        self._method.stages = self._watched_stages  # type: ignore[method-assign]
        self._method.after_step = self._watched_after  # type: ignore[method-assign]

    def _watched_stages(self) -> Iterator[Stage]:
        for number, stage in enumerate(self._stages()):
            stage = self._shortened(stage)
            self._names |= {id(p): name for name, p in self._method.named_parameters()}
            self._groups = {group.name: self._declare(stage, group) for group in stage.groups}
            self.seen.lengths[stage.name] = 0
            if stage.losses is not None:
                yield replace(stage, losses=self._losses(number, stage, stage.losses))
            else:
                assert stage.step is not None
                yield replace(stage, step=self._step(number, stage, stage.step))

    def _shortened(self, stage: Stage) -> Stage:
        if stage.steps is not None:
            return replace(stage, steps=min(stage.steps, MAX_STEPS))
        return replace(stage, epochs=min(stage.epochs or 0, self._prepared.task.epochs))

    def _declare(self, stage: Stage, group: Group) -> list[nn.Parameter]:
        teachers = {
            id(p): f"{role}.{name}"
            for role, teacher in self._prepared.teachers.items()
            for name, p in teacher.net.named_parameters()
        }
        for place, p in enumerate(group.params):
            name = self._names.get(id(p), f"parameter {place} of shape {tuple(p.shape)}")
            self.seen.declared.setdefault(p, f"{name} (group {group.name!r} of stage {stage.name!r})")
            if id(p) in teachers:
                self.seen.trained_teachers.append(f"{teachers[id(p)]} in group {group.name!r} of stage {stage.name!r}")
        return list(group.params)

    def _enter(self, number: int, stage: Stage, at: At) -> None:
        if self._stop_at == (number, at.step):
            raise Interrupted
        self.seen.lengths[stage.name] = at.step + 1
        batchnorm = self._prepared.needs.teacher_batchnorm == "batch"
        for role, teacher in self._prepared.teachers.items():
            wrong = (name for name, module in teacher.net.named_modules() if module.training != batchnorm)
            self.seen.teacher_modes |= {f"{role}.{name}".rstrip(".") for name in wrong}

    def _losses(
        self, number: int, stage: Stage, losses: Callable[[Batch, At], dict[str, Tensor]]
    ) -> Callable[[Batch, At], dict[str, Tensor]]:
        def watched(batch: Batch, at: At) -> dict[str, Tensor]:
            self._enter(number, stage, at)
            terms = losses(batch, at)
            where = f"stage {stage.name!r}, step {at.step}"
            check_terms(terms, where)
            if not any(term.requires_grad for term in terms.values()):
                raise Violation(f"{where}: no term depends on a parameter; compute them from the student, not detached")
            self._keep(stage, at, terms)
            return terms

        return watched

    def _step(
        self, number: int, stage: Stage, step: Callable[[Callable[[], Batch], At, Update], dict[str, Tensor]]
    ) -> Callable[[Callable[[], Batch], At, Update], dict[str, Tensor]]:
        def watched(draw: Callable[[], Batch], at: At, update: Update) -> dict[str, Tensor]:
            self._enter(number, stage, at)
            where = f"stage {stage.name!r}, step {at.step}"

            def watched_update(loss: Tensor, group: str | None = None) -> None:
                check_scalar(loss, f"{where}: what update() was given")
                if not loss.requires_grad:
                    raise Violation(f"{where}: update() was given a loss that depends on no parameter")
                update(loss, group)
                self._reach([group] if group is not None else list(self._groups))

            terms = step(draw, at, watched_update)
            check_terms(terms, where)
            self._keep(stage, at, terms)
            return terms

        return watched

    def _watched_after(self, batch: Batch, at: At) -> None:
        self._after(batch, at)
        self._reach(list(self._groups))

    def _reach(self, groups: list[str]) -> None:
        got = {p for name in groups for p in self._groups[name] if p.grad is not None}
        self.seen.reached |= got
        self.seen.moved |= {p for p in got - self.seen.moved if p.grad is not None and bool(p.grad.any())}

    def _keep(self, stage: Stage, at: At, terms: dict[str, Tensor]) -> None:
        self.seen.terms[stage.name, at.step] = {name: term.detach().clone() for name, term in terms.items()}


def check_terms(terms: Any, where: str) -> None:
    """Raises :class:`Violation` unless ``terms`` are named, finite and 0-d."""
    if not isinstance(terms, dict) or not terms:
        raise Violation(f"{where}: losses are a dict of at least one named term, this is {terms!r:.80}")
    for name, term in terms.items():
        if not isinstance(name, str) or name == "total":
            raise Violation(f"{where}: a term is called {name!r}; names are text, and 'total' is the engine's own")
        check_scalar(term, f"{where}: term {name!r}")


def check_scalar(value: Any, what: str) -> None:
    """Raises :class:`Violation` unless ``value`` is a finite 0-d floating tensor."""
    if not isinstance(value, Tensor):
        raise Violation(f"{what} is a {type(value).__name__}, a 0-d tensor is expected")
    if value.ndim or not value.is_floating_point():
        raise Violation(
            f"{what} has shape {tuple(value.shape)} and type {value.dtype}; reduce it to a 0-d float tensor"
        )
    if not torch.isfinite(value):
        raise Violation(f"{what} is {value.item()}; guard divisions, logs and roots of 0 and empty selections")


def first_difference(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """The first tensor in which two flat states are not bitwise equal, None when they are."""
    for name in [*a, *(key for key in b if key not in a)]:
        x, y = a.get(name), b.get(name)
        if x is None or y is None:
            return f"{name} is in one of them only"
        if x.shape != y.shape or not torch.equal(x, y):
            return f"{name}{_values(x, y)}"
    return None


def _values(x: Tensor, y: Tensor) -> str:
    return f" ({x.item():.9g} and {y.item():.9g})" if x.numel() == y.numel() == 1 else ""


def state_copy(net: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
