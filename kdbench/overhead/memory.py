"""Memory of a training step. Figures of a CPU and of a GPU mean different things and are never compared."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from kdbench.devices import backends

MIB = 2**20


@dataclass(frozen=True)
class PeakMemory:
    """Peak during one step.

    Attributes:
        alloc_mib: on a GPU all that the allocator had handed out, parameters and optimiser state included, MiB; on a
            CPU what the step had allocated at most beyond what was there before it, MiB.
        reserved_mib: what the GPU allocator held from the driver, MiB: what must be free to run; None on a CPU.
    """

    alloc_mib: float
    reserved_mib: float | None


def _cpu_changes(step: Callable[[], object]) -> list[int]:
    """Bytes allocated (positive) and freed (negative) by one step on the CPU, in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    kineto = profiler.profiler
    assert kineto is not None  # set on entry
    results = kineto.kineto_results
    assert results is not None  # set on exit
    changes = [e for e in results.events() if e.name() == "[memory]" and e.device_type() == DeviceType.CPU]
    return [change.nbytes() for change in sorted(changes, key=lambda e: e.start_ns())]


def cpu_peak_bytes(step: Callable[[], object]) -> int:
    """Highest running sum of the CPU allocator's allocations over one step, bytes.

    The same to the byte for the same step, which the resident size of a process is not.

    Args:
        step: one step, run twice: the profiler does not see the freeing of memory that was allocated outside it
            (the gradients of the step before), so the first run only makes it known.
    """
    _cpu_changes(step)
    return max(accumulate(_cpu_changes(step)), default=0)


def peak_memory(step: Callable[[], object], device: torch.device) -> PeakMemory:
    """Peak of one step.

    Args:
        step: one step, warmed up so that gradients and optimiser state exist; it runs once on a GPU, twice on a CPU.
        device: where it runs. On a GPU the process must hold this arm only, or the other's state is added.
    """
    backend = backends.of(device)
    if backend.on_host:
        return PeakMemory(cpu_peak_bytes(step) / MIB, None)
    backend.synchronize(device)
    backend.reset_peak_memory(device)
    step()
    backend.synchronize(device)
    alloc, reserved = backend.peak_memory(device)
    return PeakMemory(alloc / MIB, reserved / MIB)


def tensor_mib(tensors: Iterable[Tensor]) -> float:
    """Memory behind tensors, MiB: each storage once and whole, however many views of it there are."""
    storages = {(t.device, t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) / MIB


def rss_mib() -> float:
    """Peak resident size of this process, MiB; importing torch alone takes over 600, so it is kept, not compared."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # macOS counts bytes, Linux KiB
