"""The rule ``replay``: a step done again without Python is the step, as ``engine.cuda_graphs`` needs it.

No GPU is needed: the operators that a step dispatched on a CPU are done again on the tensors they had. Python does not
run, tensors keep their memory and draws follow their generator, so what a CUDA graph would freeze is frozen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    if problem is None:
        return None
    return (
        f"a step done again without Python differs: {problem}; change buffers in place (copy_, index_copy_) instead of "
        "binding new tensors to their names, and read what changes from step to step from at"
    )


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
        run = StageRun(prepared.method, stage, prepared.task)
        terms = [run.step(eagerly=eagerly) for _ in range(min(STEPS, run.total))]
        yield stage.name, terms, state_copy(prepared.method)


class _Recorder(TorchDispatchMode):
    """Notes every dispatched operator with its arguments and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.partition("::")[2] in LOOKS or _picks_by_mask(func, args):
            raise RuntimeError(f"the host waits for {func._schema.name}")
        out = func(*args, **kwargs)
        if not func.is_view:
            self.calls.append((func, args, kwargs, _fresh(out, args, kwargs)))
        return out

    def again(self) -> None:
        """Does all that was noted once more, into the same tensors."""
        with torch.no_grad():
            for func, args, kwargs, fresh in self.calls:
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

    def __init__(self, device: torch.device, rng: torch.Generator) -> None:
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

    def graphs(self, device: torch.device, rng: torch.Generator) -> CpuGraphs:
        return CpuGraphs(device, rng)


@contextmanager
def on_a_cpu() -> Iterator[None]:
    """Within the block ``engine.cuda_graphs`` works on a CPU, slowly."""
    with standing_in(_Graphed()):
        yield
