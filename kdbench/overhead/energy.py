"""Energy of a training step, from a GPU board's own counter, or nothing with the reason.

The sensors behind the counter of recent boards see a quarter of the time (arXiv 2312.02741), so a window is long,
several are taken, and each starts at a random moment. A counter that cannot be trusted gives null, never 0.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Protocol

BUSY_WHEN_IDLE = 5
"""Utilisation, %, above which a board on which this process rests is somebody's."""
LONGEST_OFFSET_S = 1.0
"""Windows start after a random part of this, with the arm running; it spans several sensor periods."""


class EnergyReader(Protocol):
    """What is asked of a board, a part of :class:`kdbench.devices.base.Board`."""

    source: str

    def energy_mj(self) -> int | None:
        """Energy counter of the whole board, mJ; None where it has none."""

    def mig(self) -> bool:
        """Whether the board is split into instances."""

    def other_processes(self, own: int = 1) -> int | None:
        """Processes on the board beside ``own`` ones that hold it; None if they cannot be listed."""

    def utilisation(self) -> int | None:
        """Recent utilisation, %; None if unknown."""


class Window(NamedTuple):
    """One stretch of training: gross energy of the board, J, its length, s, and its steps."""

    joules: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class MeasuredEnergy:
    """Energy of a step.

    Attributes:
        j_per_step: median over windows, gross, J; None when not valid.
        j_per_step_range: smallest and largest window, J; None when not valid.
        idle_w: power of the board before, with nothing running, W; None when not valid.
        windows: the windows measured; empty when not valid.
        source: where the figures come from, None when nothing could be read.
        valid: whether they can be trusted.
        reason: why not; empty when valid.
    """

    j_per_step: float | None
    j_per_step_range: tuple[float, float] | None
    idle_w: float | None
    windows: tuple[Window, ...]
    source: str | None
    valid: bool
    reason: str


class _Untrusted(Exception):
    """The counter cannot be trusted; the message is the reason."""


def _check_alone(reader: EnergyReader, own: int) -> None:
    others = reader.other_processes(own)
    if others is None:
        raise _Untrusted("cannot tell whether other processes use the GPU")
    if others:
        raise _Untrusted(f"other processes on the GPU: {others}")


def _read(reader: EnergyReader) -> int:
    counter = reader.energy_mj()
    if counter is None:
        raise _Untrusted("the GPU has no energy counter")
    return counter


def _joules(before: int, after: int) -> float:
    if after <= before:
        raise _Untrusted("the energy counter does not move")
    return (after - before) / 1000


def measure_energy(
    step: Callable[[], object],
    reader: EnergyReader | str,
    synchronize: Callable[[], None],
    *,
    own: int = 1,
    windows: int = 4,
    window_s: float = 30.0,
    idle_s: float = 10.0,
    rng_seed: int = 0,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> MeasuredEnergy:
    """Idle power first, then windows of steps.

    Args:
        step: one optimiser step, warmed up.
        reader: the board, or why there is none to ask.
        synchronize: waits until the device has done all steps given to it.
        own: processes of this run that hold the board.
        windows: number of windows.
        window_s: shortest window, s.
        idle_s: how long to rest for the idle power, s.
        rng_seed: seed of the start offsets.
        now, sleep: host time and its passing, s.
    """
    if isinstance(reader, str):
        return MeasuredEnergy(None, None, None, (), None, False, reader)
    try:
        idle_w, found = _measure(step, reader, synchronize, own, windows, window_s, idle_s, rng_seed, now, sleep)
    except _Untrusted as reason:
        return MeasuredEnergy(None, None, None, (), reader.source, False, str(reason))
    per_step = [w.joules / w.steps for w in found]
    return MeasuredEnergy(
        median(per_step), (min(per_step), max(per_step)), idle_w, tuple(found), reader.source, True, ""
    )


def _measure(
    step: Callable[[], object],
    reader: EnergyReader,
    synchronize: Callable[[], None],
    own: int,
    windows: int,
    window_s: float,
    idle_s: float,
    rng_seed: int,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[float, list[Window]]:
    def run(seconds: float) -> int:
        """Runs steps for a time and waits for them."""
        steps, until = 0, now() + seconds
        while steps == 0 or now() < until:
            step()
            steps += 1
        synchronize()
        return steps

    if reader.mig():
        raise _Untrusted("the GPU is split into instances (MIG); its counter is the whole board's")
    synchronize()
    _check_alone(reader, own)
    before, start = _read(reader), now()
    sleep(idle_s)
    idle_w = _joules(before, _read(reader)) / (now() - start)
    if (reader.utilisation() or 0) > BUSY_WHEN_IDLE:
        raise _Untrusted("the GPU works while this process rests; something else uses it")
    offsets = random.Random(rng_seed)
    found = []
    for _ in range(windows):
        run(offsets.uniform(0, LONGEST_OFFSET_S))
        before, start = _read(reader), now()
        steps = run(window_s)
        joules, seconds = _joules(before, _read(reader)), now() - start
        _check_alone(reader, own)
        found.append(Window(joules, seconds, steps))
    return idle_w, found
