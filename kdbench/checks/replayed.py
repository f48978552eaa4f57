"""The rule ``replay``: a step done again without Python is the step, as ``engine.cuda_graphs`` needs it.

No GPU is needed: the operators that a step dispatched on a CPU are done again on the tensors they had. Python does not
run, tensors keep their memory and draws follow their generator, so what a CUDA graph would freeze is frozen here. As
there, memory that the step did not make itself is not kept alive for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from kdbench.checks.result import Skipped, Verdict
from kdbench.checks.tiny import Tiny
from kdbench.checks.watch import first_difference, state_copy
from kdbench.devices.backends import standing_in
from kdbench.devices.backends.cpu import Cpu
from kdbench.devices.graphs import Terms
from kdbench.engine.graphs import WARM_STEPS, NotCaptured
from kdbench.engine.stage import StageRun
from kdbench.specs.options import EngineOptions

STEPS = 3 * WARM_STEPS
"""Steps of a stage: warm, captured and replayed, and anew in the second epoch of a tiny task."""
REMEDY = (
    "change buffers in place (copy_, index_copy_) instead of binding new tensors to their names, and read what changes "
    "from step to step from at"
)
LOOKS = ("_local_scalar_dense", "equal", "masked_select", "nonzero", "_unique2", "unique_consecutive", "unique_dim")
"""Operators for which the host waits: no CUDA graph can hold them."""


def replayed(tiny: Tiny, folder: Path) -> Verdict:
    """Rule ``replay``."""
    tiny = replace(tiny, config=replace(tiny.config, engine=EngineOptions(fused=True, cuda_graphs=True)))
    try:
        with on_a_cpu():
            problem = _first_other_step(tiny, folder)
    except NotCaptured as refused:
        return Skipped(f"engine.cuda_graphs refuses the method: {refused.reason}")
    except _Freed as freed:
        return f"{freed}; {REMEDY}"
    if problem is None:
        return None
    return f"a step done again without Python differs: {problem}; {REMEDY}"


def _first_other_step(tiny: Tiny, folder: Path) -> str | None:
    """Where replayed steps part from eager ones."""
    eager = list(_trained(tiny, folder / "eager", eagerly=True))
    for (stage, terms, state), (_, again, own) in zip(eager, _trained(tiny, folder / "again"), strict=True):
        for number, (wanted, found) in enumerate(zip(terms, again, strict=True)):
            if problem := first_difference(wanted, found):
                return f"term {problem} at step {number} of stage {stage!r}"
        if problem := first_difference(state, own):
            return f"{problem} after stage {stage!r}"
    return None


def _trained(
    tiny: Tiny, folder: Path, eagerly: bool = False
) -> Iterator[tuple[str, list[dict[str, Tensor]], dict[str, Tensor]]]:
    """Name, terms of the first steps and state after them, of each stage."""
    prepared = tiny.prepare(folder)
    stages = prepared.method.stages()
    for number in count():
        torch.manual_seed(number)  # modules are made between two stages
        stage = next(stages, None)
        if stage is None:
            return
        prepared.method.to(prepared.task.device).train()
        with closing(StageRun(prepared.method, stage, prepared.task)) as run:
            terms = [run.step(eagerly=eagerly) for _ in range(min(STEPS, run.total))]
        yield stage.name, terms, state_copy(prepared.method)


class _Freed(Exception):
    """A step done again would read memory that is no longer there."""


class _Outside:
    """A tensor that a step did not make: where it lies, without keeping it there."""

    def __init__(self, tensor: Tensor, operator: str) -> None:
        self._memory = StorageWeakRef(tensor.untyped_storage())
        self._type, self._form = tensor.dtype, (tensor.storage_offset(), tensor.size(), tensor.stride())
        self._said = f"{operator} reads a tensor of shape {tuple(tensor.shape)}"

    def found(self) -> Tensor:
        """The tensor.

        Raises:
            _Freed: nobody holds it any more.
        """
        memory = torch.UntypedStorage._new_with_weak_ptr(self._memory.cdata)
        if memory is None:
            raise _Freed(f"a captured step would read freed memory: its {self._said} that nothing holds any more")
        return torch.empty(0, dtype=self._type).set_(memory, *self._form)


class _Recorder(TorchDispatchMode):
    """Notes every dispatched operator with its arguments and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.partition("::")[2] in LOOKS or _picks_by_mask(func, args):
            raise RuntimeError(f"the host waits for {func._schema.name}")
        noted = tree_map_only(Tensor, lambda tensor: self._noted(tensor, func.__name__), (args, kwargs))
        out = func(*args, **kwargs)
        if not func.is_view:
            fresh = _fresh(out, args, kwargs)
            self._made |= {tensor.untyped_storage()._cdata for tensor in fresh}
            self.calls.append((func, *noted, fresh))
        return out

    def _noted(self, tensor: Tensor, operator: str) -> Tensor | _Outside:
        """What the step made it keeps, as a CUDA graph's pool does."""
        return tensor if tensor.untyped_storage()._cdata in self._made else _Outside(tensor, operator)

    def again(self) -> None:
        """Does all that was noted once more, into the same tensors.

        Raises:
            _Freed: something that it reads is gone.
        """
        with torch.no_grad():
            for func, noted_args, noted_kwargs, fresh in self.calls:
                args, kwargs = tree_map_only(_Outside, _Outside.found, (noted_args, noted_kwargs))
                for mine, new in zip(fresh, _fresh(func(*args, **kwargs), args, kwargs), strict=True):
                    mine.detach().copy_(new)


def _picks_by_mask(func: Any, args: Any) -> bool:
    """Whether the size of a result depends on values."""
    by = args[1] if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put) else ()
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in by)


def _fresh(out: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Tensors of a result that lie in no memory of the arguments."""
    known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
    return [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.untyped_storage()._cdata not in known]


class CpuGraphs:
    """Stands in for CUDA graphs on a CPU.

    Attributes:
        captures, replays: how often each was done since they were last set to 0.
    """

    captures = replays = 0

    def __init__(self, device: torch.device, rngs: Sequence[torch.Generator]) -> None:
        pass

    def warm(self, work: Callable[[], Terms]) -> Terms:
        """Work."""
        return work()

    def capture(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """By its dispatched operators."""
        with _Recorder() as recorder:
            terms = work()
        type(self).captures += 1
        computed = True  # recording has, which a CUDA graph's capture does not

        def again() -> None:
            nonlocal computed
            type(self).replays += 1
            if not computed:
                recorder.again()
            computed = False

        return terms, again


class _Graphed(Cpu):
    """A CPU whose steps can be recorded."""

    def no_graphs(self) -> str | None:
        return None

    def graphs(self, device: torch.device, rngs: Sequence[torch.Generator]) -> CpuGraphs:
        return CpuGraphs(device, rngs)


@contextmanager
def on_a_cpu() -> Iterator[None]:
    """Within the block ``engine.cuda_graphs`` works on a CPU, slowly."""
    with standing_in(_Graphed()):
        yield
