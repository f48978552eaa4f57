"""A CUDA graph that is none: it holds addresses, as a real one does, and keeps nothing alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from fake_cuda.operators import FakeCuda, place
from kdbench.devices.graphs import Terms


class Freed(RuntimeError):
    """A graph would read memory that is no longer its own."""


class NotCapturable(RuntimeError):
    """A captured step would copy between host and device, or make the host wait."""


@dataclass(frozen=True)
class _Read:
    """A tensor that captured work reads and did not make."""

    storage: StorageWeakRef
    said: str


class _Inputs:
    """Tensors that come from outside of captured work."""

    def __init__(self) -> None:
        self._made: set[int] = set()
        self._read: dict[int, _Read] = {}

    def __call__(self, name: str, own: Sequence[Tensor], out: Any) -> None:
        for tensor in own:
            key = tensor.untyped_storage()._cdata
            if key not in self._made and key not in self._read:
                said = f"{name} of {tuple(tensor.shape)} in {place()}"
                self._read[key] = _Read(StorageWeakRef(tensor.untyped_storage()), said)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self._read:
                self._made.add(leaf.untyped_storage()._cdata)

    def require_alive(self) -> None:
        """Raises :class:`Freed` where one of them is gone."""
        gone = sorted(read.said for read in self._read.values() if read.storage.expired())
        if gone:
            raise Freed(f"read by the graph and freed: {'; '.join(gone)}")


class FakeGraphs:
    """Captured work is done again by Python: what a graph would freeze is another stand-in's to see
    (:class:`kdbench.checks.replayed.CpuGraphs`), this one looks at what lies where.

    Attributes:
        captures, replays: how often each was done since they were last set to 0.
    """

    captures = replays = 0

    def __init__(self, fake: FakeCuda) -> None:
        self._fake = fake

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Work."""
        return work()

    def capture(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """Work that is done, and watched.

        Raises:
            NotCapturable: no CUDA graph could hold it.
        """
        inputs = self._fake.listener = _Inputs()
        try:
            with self._fake.watched() as seen:
                terms = work()
        finally:
            self._fake.listener = None
        if seen.events:
            raise NotCapturable("; ".join(f"{what} by {name} in {where}" for what, name, where in sorted(seen.events)))
        type(self).captures += 1
        done = True

        def again() -> None:
            nonlocal done
            inputs.require_alive()
            type(self).replays += 1
            if not done:
                with self._fake.watched():  # the graph is one launch
                    for name, value in work().items():
                        terms[name].copy_(value)
            done = False

        inputs.require_alive()
        return terms, again
