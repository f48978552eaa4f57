"""A whole step as a graph: what the host launched once is replayed, on CUDA as one CUDA graph.

A captured step is frozen. The same kernels run on the same memory, and what Python computed on the way keeps its value.
Only four things may change from step to step: what lies in tensors, the learning rates (tensors here), numbers that
losses take from :meth:`At.by_epoch` (tensors here), and the draws of the step's generators. Where a batch follows from
its row numbers by work of the device, it is drawn within the step. So a graph serves batches of one layout, for as long
as what the losses read of :class:`kdbench.contract.At` keeps its value; where it does not, the step runs eagerly, and
is captured anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import At, Batch
from kdbench.devices import backends
from kdbench.devices.graphs import Terms

WARM_STEPS = 3
"""Eager steps before the first capture: libraries choose kernels, and optimisers make their state."""

Given = Batch | Tensor
"""What a step starts from: its batch, or the numbers of the batch's rows, which it then draws itself."""
Work = Callable[[Any, At], Terms]
"""A whole step on what it is given; returns the detached terms."""


class NotCaptured(UserError):
    """A step that no graph can hold; ``reason`` is the library's."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(
            f"engine.cuda_graphs=true: no step of stage {stage!r} can be captured ({reason}); leave it out"
        )
        self.reason = reason


def require_graphs(device: torch.device) -> None:
    """Raises :class:`UserError` on a device that has none."""
    if reason := backends.of(device).no_graphs():
        raise UserError(f"engine.cuda_graphs=true: {reason}; leave it out or add --device cuda")


class _Followed:
    """The numbers of a step that follow the epoch, in tensors that outlive it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._numbers: list[tuple[Callable[[int], float], Tensor]] = []
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: Callable[[int], float], epoch: int) -> None:
        """One more number, as it is in an epoch."""
        self._numbers.append((number, torch.full((), number(epoch), device=self._device)))

    def at(self, place: int) -> Tensor:
        """The tensor of a number, by its place in the step."""
        return self._numbers[place][1]

    def follow(self, epoch: int) -> None:
        """All of them, as they are in an epoch."""
        if epoch != self._epoch:
            for number, held in self._numbers:
                held.fill_(number(epoch))
        self._epoch = epoch


class Watched(At):
    """Where training stands, noting what is read of it and can change within a stage."""

    seen: set[str]
    followed: _Followed
    asked: int

    @classmethod
    def of(cls, at: At, followed: _Followed) -> Watched:
        """The same, with nothing read yet."""
        watched = cls(*at)
        watched.seen, watched.followed, watched.asked = set(), followed, 0
        return watched

    def by_epoch(self, number: Callable[[int], float]) -> Tensor:
        """A tensor; numbers are known by their places in the step."""
        if self.asked == len(self.followed):
            self.followed.add(number, super().__getattribute__("epoch"))
        self.asked += 1
        return self.followed.at(self.asked - 1)

    def __getattribute__(self, name: str) -> Any:
        if name in ("step", "epoch", "t"):
            self.seen.add(name)
        return super().__getattribute__(name)

    def __iter__(self) -> Any:
        self.seen |= {"step", "epoch", "t"}
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        self.seen |= {"step", "epoch", "t"}
        return super().__getitem__(key)


Reads = dict[str, float]
"""What a step read of :class:`At`, by name."""


def _holds(reads: Reads, at: At) -> bool:
    return all(getattr(at, name) == value for name, value in reads.items())


@dataclass
class _Captured:
    """A step that was recorded, on the memory it reads and writes."""

    again: Callable[[], None]
    given: Given
    terms: Terms
    reads: Reads

    def replay(self, given: Given) -> Terms:
        for mine, other in zip(_tensors(self.given), _tensors(given), strict=True):
            mine.copy_(other)
        self.again()
        # The next replay writes over them.
        return dict(zip(self.terms, torch.stack(list(self.terms.values())).unbind(), strict=True))


class Replay:
    """A stage's steps: eager at first, then replayed.

    Args:
        name: of the stage, for messages.
        work: one whole step. Tensors it changes are changed in place, but for gradients.
        device: where it runs.
        rngs: the generators it draws from, seeded anew before every step.
    """

    def __init__(self, name: str, work: Work, device: torch.device, rngs: Sequence[torch.Generator]) -> None:
        self.name, self.work = name, work
        self._graphs = backends.of(device).graphs(device, rngs)
        self._eager_steps = 0
        self._read: dict[Hashable, Reads] = {}
        self._captured: dict[Hashable, _Captured] = {}
        self._followed = _Followed(device)

    def __call__(self, given: Given, at: At) -> Terms:
        """One step, in whichever way."""
        layout = _layout(given)
        self._followed.follow(at.epoch)
        captured = self._captured.get(layout)
        if captured is not None and _holds(captured.reads, at):
            return captured.replay(given)
        read = self._read.get(layout)
        if self._eager_steps < WARM_STEPS or read is None or not _holds(read, at):
            return self._eagerly(layout, given, at)
        # The old one is let go when the new one holds the pool: a pool whose last graph is gone takes no more captures.
        captured = self._captured[layout] = self._capture(given, at)
        return captured.replay(given)

    def _eagerly(self, layout: Hashable, given: Given, at: At) -> Terms:
        watched = Watched.of(at, self._followed)
        found = self._graphs.warm(lambda: self.work(given, watched))
        self._eager_steps += 1
        self._read[layout] = _reads(watched)
        return found

    def _capture(self, given: Given, at: At) -> _Captured:
        watched, own = Watched.of(at, self._followed), _copy(given)

        def work() -> Terms:
            watched.asked = 0  # a stand-in may do it again by Python
            return self.work(own, watched)

        try:
            terms, again = self._graphs.capture(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first: BaseException = error
            while first.__context__ is not None:  # ending a broken capture raises once more
                first = first.__context__
            reason = (str(first).strip().splitlines() or [type(first).__name__])[0]
            raise NotCaptured(self.name, reason) from error
        return _Captured(again, own, terms, _reads(watched))


def _reads(watched: Watched) -> Reads:
    return {name: getattr(watched, name) for name in sorted(watched.seen)}


def _tensors(batch: Given) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    seen = [] if batch.visible is None else [batch.visible]
    return [*batch.x.values(), *_targets(batch.y), batch.index, *batch.present.values(), *seen]


def _targets(y: Any) -> list[Tensor]:
    return [y] if isinstance(y, Tensor) else list(y.tensors().values())


def _layout(batch: Given) -> Hashable:
    """What a graph's memory must share with what a step is given."""
    tensors = tuple((tuple(t.shape), t.dtype, t.stride()) for t in _tensors(batch))
    if isinstance(batch, Tensor):
        return tensors
    return tuple(batch.x), tuple(batch.present), batch.views, tensors


def _cloned(y: Any) -> Any:
    """Targets in memory of their own, where a slice may share that of a tensor."""
    return y.clone() if isinstance(y, Tensor) else y[torch.arange(len(y), device=_targets(y)[0].device)]


def _copy(batch: Given) -> Given:
    if isinstance(batch, Tensor):
        return batch.clone()
    x, present = ({name: t.clone() for name, t in some.items()} for some in (batch.x, batch.present))
    seen = None if batch.visible is None else batch.visible.clone()
    return replace(batch, x=x, present=present, y=_cloned(batch.y), index=batch.index.clone(), visible=seen)
