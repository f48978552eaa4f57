"""Graphs of a CPU, for tests: the operators of a step are done again on the tensors they had, as a CUDA graph does.

Python does not run again, tensors keep their memory, and only draws follow their generator: what a CUDA graph would
freeze is frozen here. The host may not look at a result while a step is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "unique_consecutive", "equal")


def storages(tree: Any) -> set[int]:
    """Memory of the tensors in a tree."""
    return {t.untyped_storage()._cdata for t in tree_leaves(tree) if isinstance(t, Tensor)}


class Recorder(TorchDispatchMode):
    """Notes every dispatched operator with its arguments and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.partition("::")[2].strip("_") in {look.strip("_") for look in LOOKS}:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        out = func(*args, **kwargs)
        known = storages((args, kwargs))
        fresh = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.untyped_storage()._cdata not in known]
        if not func.is_view:
            self.calls.append((func, args, kwargs, fresh))
        return out

    def again(self) -> None:
        """Does all that was noted once more, into the same tensors."""
        with torch.no_grad():
            for func, args, kwargs, fresh in self.calls:
                known = storages((args, kwargs))
                found = [t for t in tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
                found = [t for t in found if t.untyped_storage()._cdata not in known]
                for mine, new in zip(fresh, found, strict=True):
                    mine.detach().copy_(new)


class CpuGraphs:
    """What :data:`kdbench.engine.replay.GRAPHS` can hold for a CPU.

    Attributes:
        captures, replays: how often each was done, by all that were made since ``forget``.
    """

    captures = replays = 0

    def __init__(self, device: torch.device, rng: torch.Generator) -> None:
        assert device.type == "cpu"

    @classmethod
    def forget(cls) -> None:
        cls.captures = cls.replays = 0

    def warm(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return work()

    def capture(self, work: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        with Recorder() as recorder:
            terms = work()
        type(self).captures += 1
        done = True  # recording computed already, which a CUDA capture does not

        def again() -> None:
            nonlocal done
            type(self).replays += 1
            if not done:
                recorder.again()
            done = False

        return terms, again
