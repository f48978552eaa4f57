"""The host's processors."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench.devices.base import Backend, Speed, Timing

if TYPE_CHECKING:
    import torch

    from kdbench.devices.clock import Clock

COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++")
"""C++ compilers that torch.compile looks for."""


class Cpu(Backend):
    """Steps are timed by processor time, and cut into slices that take turns."""

    name = type = "cpu"
    title = "CPU"
    on_host = True
    collective = "gloo"
    timing = Timing(slice_s=0.01, aa_limit=0.04, half_width=0.03, limit_s={"quick": 2.0, "full": 6.0})

    def absent(self) -> str | None:
        return None

    def devices(self) -> Sequence[torch.device]:
        import torch

        return [torch.device("cpu")]

    def speed(self) -> Speed:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Speed(6e3 * cores, 0.002)

    def make_current(self, device: torch.device) -> None:
        """There is one."""

    def synchronize(self, device: torch.device) -> None:
        """Nothing to wait for."""

    def clock(self, device: torch.device) -> Clock:
        from kdbench.devices.clock import HostClock

        return HostClock()

    def wall(self, device: torch.device) -> Clock:
        from kdbench.devices.clock import HostClock

        return HostClock(time.perf_counter)

    def no_compiler(self) -> str | None:
        if any(map(shutil.which, COMPILERS)):
            return None
        return "no C++ compiler is on the PATH; install g++ or clang"


BACKEND = Cpu()
