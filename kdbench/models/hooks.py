"""Taps on a module's submodules. A tap holds nothing: what passes it goes to whoever watches in its own thread.

So a tapped module can be copied, pickled and run by several threads at once, and no graph lives on between two steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.models.trace import first_tensor, read_by
from kdbench.specs.nets import INPUT


@dataclass(frozen=True)
class Point:
    """A place in a module.

    Attributes:
        path: of the submodule.
        before: what it reads is meant, not what it gives.
        copied: what passes is written to afterwards, so that a copy is taken.
    """

    path: str
    before: bool = False
    copied: bool = False

    @property
    def text(self) -> str:
        """As it is written."""
        return self.path + (INPUT if self.before else "")


class _Watches(threading.local):
    def __init__(self) -> None:
        self.open: list[dict[Point, tuple[Tensor, int]]] = []


_watches = _Watches()


@dataclass
class _Before:
    point: Point

    def __call__(self, module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        _note(self.point, read_by(args, words))


@dataclass
class _After:
    point: Point

    def __call__(self, module: nn.Module, args: tuple[Any, ...], gave: Any) -> None:
        _note(self.point, first_tensor(gave))


def _note(point: Point, tensor: Tensor | None) -> None:
    if _watches.open and tensor is not None:
        kept = tensor.clone() if point.copied else tensor
        _watches.open[-1][point] = (kept, _writes(kept))


def _writes(tensor: Tensor) -> int:
    """How often a tensor has been written to in place."""
    return 0 if tensor.is_inference() else tensor._version


def attach(body: nn.Module, points: set[Point]) -> None:
    """Taps a module at some points, for good."""
    for point in sorted(points, key=lambda one: one.text):
        module = body.get_submodule(point.path)
        if point.before:
            module.register_forward_pre_hook(_Before(point), with_kwargs=True)
        else:
            module.register_forward_hook(_After(point))


@dataclass
class Watch:
    """What passed the taps while it was open."""

    seen: dict[Point, tuple[Tensor, int]] = field(default_factory=dict)

    def passed(self, point: Point) -> bool:
        """Whether anything passed a tap."""
        return point in self.seen

    def at(self, point: Point) -> Tensor:
        """What passed a tap.

        Raises:
            UserError: nothing did, or it has been written to since.
        """
        if point not in self.seen:
            raise UserError(f"nothing passed {point.text!r} in this forward pass; a tap is called in every one")
        tensor, writes = self.seen[point]
        if _writes(tensor) != writes:
            raise UserError(
                f"what passed {point.text!r} was written to in place later on; give inplace=False to the module after "
                "it, or tap another place"
            )
        return tensor


@contextmanager
def watching() -> Iterator[Watch]:
    """Within the block, what passes taps in this thread is kept: of each the last."""
    watch = Watch()
    _watches.open.append(watch.seen)
    try:
        yield watch
    finally:
        _watches.open.pop()
