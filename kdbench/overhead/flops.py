"""Counted floating-point operations of a step: a lower bound by matrix products, convolutions and attention.

What the counter cannot see is named rather than guessed: every dispatched computation without a formula is listed.
Two things stay invisible, to the list too: an ``autograd.Function`` that computes outside torch, and the insides of a
compiled or replayed graph (so steps are counted eager). Some losses are counted in part: of ``cdist`` only the backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

COUNTER = f"torch.utils.flop_counter {torch.__version__.partition('+')[0]}"
"""Name and version of the counter, for records."""

_MOVES = {
    "cat", "clone", "constant_pad_nd", "contiguous", "copy", "empty_like", "empty_strided", "fill", "flip",
    "full_like", "lift_fresh", "lift_fresh_copy", "new_empty", "new_empty_strided", "new_full", "new_ones",
    "new_zeros", "ones_like", "repeat", "resize", "roll", "set", "stack", "to_copy", "zero", "zeros_like",
}  # fmt: skip
"""Operators that place or copy elements and compute nothing, without underscores at either end."""


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations of one call, two for each multiply-add.

    Attributes:
        flops: the sum, a lower bound.
        by_op: operator to its share.
        uncounted_ops: dispatched operators that compute but have no formula, sorted; an operator and its in-place
            form are one.
        counter: name and version of the counter.
    """

    flops: int
    by_op: dict[str, int]
    uncounted_ops: tuple[str, ...]
    counter: str = COUNTER


def _computes(op: torch._ops.OpOverload) -> bool:
    """Whether an operator computes on tensors, as against viewing, describing, placing or copying them."""
    if op.namespace in {"prim", "profiler"} or op.is_view or torch.Tag.inplace_view in op.tags:
        return False
    if op._schema.name.partition("::")[2].strip("_") in _MOVES:
        return False
    takes = any("Tensor" in str(argument.type) for argument in op._schema.arguments)
    gives = op._schema.is_mutable or any("Tensor" in str(result.type) for result in op._schema.returns)
    draws = torch.Tag.nondeterministic_seeded in op.tags
    return gives and (takes or draws)


def _short(op: torch._ops.OpOverload) -> str:
    """``add`` for ``aten::add_.Tensor``; other libraries keep their name in front."""
    library, _, name = op._schema.name.partition("::")
    name = name.rstrip("_")
    return name if library == "aten" else f"{library}.{name}"


class _Uncounted(TorchDispatchMode):
    """Collects the operators that compute without a formula, decomposing composites as the counter does."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:  # inference mode hands composites over whole; their parts may well have formulas
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            if _computes(func):
                self.names.add(_short(func))
        return func(*args, **kwargs)


def count_flops(call: Callable[[], object], compiled: bool = False) -> FlopCount:
    """Counts one call: a forward pass, or a whole training step with every network it runs.

    The call runs once, about twice as slowly as usual, and changes what it changes: never count and time together.

    Args:
        call: the work; divide the result by the labelled samples it takes.
        compiled: networks in it were compiled.
    """
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, FlopCounterMode(display=False) as counter, _Uncounted() as uncounted:
        call()
    by_op = {str(op).removeprefix("aten."): n for op, n in counter.get_flop_counts().get("Global", {}).items()}
    return FlopCount(counter.get_total_flops(), dict(sorted(by_op.items())), tuple(sorted(uncounted.names)))
