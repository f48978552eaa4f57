"""The paired measurement of a method's step against plain training.

Two arms run in one process in short blocks, in random order within each pair of blocks, so that whatever slows the
machine slows both. The ratio is estimated from the pairs of several builds of both (:mod:`kdbench.stats.step_ratio`).

On a CPU the two blocks of a pair are cut into slices that take turns. Another process comes and goes within a block:
plain against plain on a core shared with one, 5 runs of 12 s, gave a standard deviation of 0.062 with whole blocks and
0.020 with slices of one 11 ms step; with that process on the other core, 0.016 and 0.009. A GPU keeps whole blocks:
there the host runs ahead, and in short turns one arm's launches would hide behind the other's kernels.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

import torch

from kdbench.devices import backends
from kdbench.devices.clock import Arm, Clock, quiet_gc
from kdbench.stats.step_ratio import RatioEstimate, estimate_ratio, log_spread

WARMUP_GROUP = 5
"""Steps whose median is compared with that of the group before."""
WARMUP_MIN, WARMUP_MAX = 20, 100
"""Warm-up steps of an arm after its first step."""
WARMUP_CHANGE = 0.03
"""Relative difference of two consecutive medians below which an arm has settled."""
FIRST = 1
"""Builds of a process that come first and do not count, see :mod:`kdbench.records.counted`."""
MOST_PAIRS = 40
"""Of one build: what a record holds."""


class Both(NamedTuple):
    """A value of each arm."""

    plain: float
    method: float


@dataclass(frozen=True)
class Budget:
    """What a measurement may cost and how exact it must be.

    Attributes:
        mode: its name in records.
        builds: times both arms are built and measured, beside the first time, which does not count.
        block_s: shortest block, seconds.
        min_pairs: pairs of blocks of a build before its spread may end it.
        warmup_s: limit on a build's warm-up of both arms after their first steps, seconds; overrides ``WARMUP_MIN``.
        limit_s: limit on the pairs of blocks of a build, seconds; None is the device's own, see :class:`Timing`.
        half_width: relative half-width of the interval that is wanted; None is the device's own.
    """

    mode: Literal["quick", "full"]
    builds: int
    block_s: float
    min_pairs: int
    warmup_s: float
    limit_s: float | None = None
    half_width: float | None = None

    def on(self, device: torch.device) -> tuple[float, float]:
        """``limit_s`` and ``half_width`` on a device."""
        own = backends.of(device).timing
        limit_s = own.limit_s[self.mode] if self.limit_s is None else self.limit_s
        return limit_s, own.half_width if self.half_width is None else self.half_width


QUICK = Budget("quick", 3, 0.1, 4, 3.0)
"""About 11 s for both arms together, beside their first steps: for a first look, never published as a cell."""
FULL = Budget("full", 5, 0.2, 6, math.inf)
"""For published cells: 30 pairs or more."""


@dataclass(frozen=True)
class PairedTiming:
    """What the paired measurement of one build gave.

    Attributes:
        pairs: (plain, method) time per step of each pair of blocks, ms, in the order measured.
        first_step_ms: first step of each arm, ms. The method's comes first and bears the process's lazy initialisation.
        steps_per_block: steps in a block of each arm.
        turns: slices of a block; 1 where the blocks of a pair ran whole.
        warmup_steps: steps each arm ran before the blocks, its first step included.
        settled: both arms' warm-up ended by the 3 % rule rather than by a limit.
    """

    pairs: tuple[tuple[float, float], ...]
    first_step_ms: Both
    steps_per_block: tuple[int, int]
    turns: int
    warmup_steps: tuple[int, int]
    settled: bool


class _Warm:
    """Warm-up of one arm: what it has run so far."""

    def __init__(self, clock: Clock, arm: Arm) -> None:
        self._clock, self._arm = clock, arm
        clock.synchronize()
        start = clock.now()
        arm()
        clock.synchronize()
        self.first_s = clock.now() - start  # host time: building kernels is what makes a first step slow
        self.medians: list[float] = []
        self.steps = 0

    def group(self, until: float) -> None:
        """Runs up to ``WARMUP_GROUP`` steps more."""
        seconds = self._clock.steps(self._arm, WARMUP_GROUP, until)
        self.medians.append(median(seconds))
        self.steps += len(seconds)

    @property
    def settled(self) -> bool:
        if self.steps < WARMUP_MIN:
            return False
        before, last = self.medians[-2:]
        return abs(last - before) < WARMUP_CHANGE * before

    @property
    def done(self) -> bool:
        return self.settled or self.steps >= WARMUP_MAX

    @property
    def step_s(self) -> float:
        """Seconds of a step in the fastest group: a disturbed group would make the blocks too short."""
        return min(self.medians)


def _warm_up(clock: Clock, plain: Arm, method: Arm, limit_s: float, again: bool) -> tuple[_Warm, _Warm]:
    """Runs both arms in turns until each has settled or a limit is reached; every arm gets one group at least.

    ``again``: an earlier build has warmed the process up, so one group each is enough to touch the new memory.
    """
    warm_method = _Warm(clock, method)
    warm_plain = _Warm(clock, plain)
    until = clock.now() + limit_s
    arms = (warm_plain, warm_method)
    while not all(arm.medians for arm in arms) or (
        not again and clock.now() < until and not all(arm.done for arm in arms)
    ):
        for arm in arms:
            if not arm.done:
                gc.collect()
                arm.group(until)
    return arms


def _shape(block_s: float, slice_s: float, plain_s: float, method_s: float) -> tuple[int, tuple[int, int]]:
    """Turns of a pair, and the steps of either arm in a turn, so that all turns together fill a block."""
    turns = max(1, math.ceil(block_s / max(slice_s, plain_s, method_s)))
    return turns, (math.ceil(block_s / turns / plain_s), math.ceil(block_s / turns / method_s))


def measure_pairs(
    plain: Arm, method: Arm, device: torch.device, *, budget: Budget, build: int, clock: Clock | None = None
) -> PairedTiming:
    """Times a method's step against the plain step, for one build of both.

    Args:
        plain, method: one optimiser step each, on the next batch of a ring that already lies on the device.
        device: where they run.
        budget: ``QUICK`` or ``FULL``.
        build: number of the build, from 0. It seeds the order of the arms within each turn; the first build's warm-up
            is that of the process.
        clock: the clock to read; the device's own unless given.

    Raises:
        UserError: a device of no known backend.
    """
    backend = backends.of(device)
    clock = clock or backend.clock(device)
    limit_s, wanted = budget.on(device)
    order = random.Random(build)
    arms = (plain, method)
    pairs: list[tuple[float, float]] = []
    with quiet_gc():
        warm = _warm_up(clock, plain, method, budget.warmup_s, again=build > 0)
        turns, steps = _shape(budget.block_s, backend.timing.slice_s, warm[0].step_s, warm[1].step_s)
        start = clock.now()
        while True:
            gc.collect()
            seconds = [0.0, 0.0]
            for _ in range(turns):
                for i in order.sample((0, 1), 2):
                    seconds[i] += clock.block(arms[i], steps[i])
            pairs.append((1000 * seconds[0] / (turns * steps[0]), 1000 * seconds[1] / (turns * steps[1])))
            if clock.now() - start >= limit_s or len(pairs) == MOST_PAIRS:
                break
            if len(pairs) >= budget.min_pairs and 2 * log_spread(pairs) <= wanted:
                break
    return PairedTiming(
        pairs=tuple(pairs),
        first_step_ms=Both(1000 * warm[0].first_s, 1000 * warm[1].first_s),
        steps_per_block=(turns * steps[0], turns * steps[1]),
        turns=turns,
        warmup_steps=(1 + warm[0].steps, 1 + warm[1].steps),
        settled=all(arm.settled for arm in warm) if build == 0 else True,
    )


def converged(estimate: RatioEstimate, device: torch.device, budget: Budget) -> bool:
    """Whether an interval is as narrow as the budget wants."""
    return estimate.half_width <= budget.on(device)[1]


def plain_first(build: int) -> bool:
    """Whether plain is constructed before the method: in every other build, as who comes first gets other memory."""
    return build % 2 == 0


def measure_builds(
    plain: Callable[[], Arm],
    method: Callable[[], Arm],
    device: torch.device,
    *,
    budget: Budget,
    clock: Clock | None = None,
) -> tuple[RatioEstimate, list[PairedTiming]]:
    """Builds two arms anew for each build of a budget and measures them against each other.

    Args:
        plain, method: build an arm.
        device, budget, clock: as in :func:`measure_pairs`.

    Returns:
        The estimate, and the timings of all builds; the first is in no estimate.
    """
    found = []
    for build in range(FIRST + budget.builds):
        arms = (plain(), method()) if plain_first(build) else (method(), plain())[::-1]
        found.append(measure_pairs(*arms, device, budget=budget, build=build, clock=clock))
    return estimate_ratio([timing.pairs for timing in found[FIRST:]]), found
