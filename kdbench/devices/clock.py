"""Clocks for training steps: processor time on a CPU, events on a GPU. Neither synchronises inside a step.

Steps are timed on one thread, so on an idle machine processor time and the clock on the wall agree; on a busy one the
first leaves out what other processes take. Same arms, same estimator, load 8 to 12 on two cores: plain against plain
1.001 to 1.004 by processor time, 0.92 to 1.04 by the wall; a known cost of 1.50 came out as 1.51 against 1.59.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol

import torch

Arm = Callable[[], object]
"""One step of whatever is timed; its data already lies on the device."""


class Clock(Protocol):
    """Times runs of an arm, in seconds."""

    def now(self) -> float:
        """Time for limits."""

    def synchronize(self) -> None:
        """Waits until the device has done all it was given."""

    def block(self, arm: Arm, steps: int) -> float:
        """Seconds of ``steps`` steps together; the device is idle before and after."""

    def steps(self, arm: Arm, steps: int, until: float) -> list[float]:
        """Seconds of each of up to ``steps`` steps; none is started after ``until``, except the first."""


class HostClock:
    """Time of the host, for devices whose work is done when the call returns.

    Args:
        now: the time source, seconds: ``time.process_time``, or ``time.perf_counter`` where waiting counts.
    """

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        self.now = now

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def block(self, arm: Arm, steps: int) -> float:
        start = self.now()
        for _ in range(steps):
            arm()
        return self.now() - start

    def steps(self, arm: Arm, steps: int, until: float) -> list[float]:
        seconds: list[float] = []
        while len(seconds) < steps and (not seconds or self.now() < until):
            seconds.append(self.block(arm, 1))
        return seconds


class EventClock:
    """Events on the device's current stream, one synchronise after the last step.

    Args:
        device: whose module of torch has events and streams, as ``torch.cuda`` does.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._api: Any = torch.get_device_module(device)

    def now(self) -> float:
        return time.perf_counter()

    def synchronize(self) -> None:
        self._api.synchronize(self.device)

    def _mark(self) -> Any:
        event = self._api.Event(enable_timing=True)
        event.record(self._api.current_stream(self.device))
        return event

    def block(self, arm: Arm, steps: int) -> float:
        first = self._mark()
        for _ in range(steps):
            arm()
        last = self._mark()
        self.synchronize()
        return float(first.elapsed_time(last)) / 1000

    def steps(self, arm: Arm, steps: int, until: float) -> list[float]:
        marks = [self._mark()]
        while len(marks) <= steps and (len(marks) == 1 or self.now() < until):
            arm()
            marks.append(self._mark())
        self.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]


@contextmanager
def quiet_gc() -> Iterator[None]:
    """No automatic garbage collection inside; what lives at the start is set aside.

    With the interpreter's and torch's own objects set aside an explicit ``gc.collect()`` inside takes microseconds
    rather than about 60 ms, which would be a quarter of a short block.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
