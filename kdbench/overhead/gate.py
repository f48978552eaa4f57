"""Plain against plain: whether a machine is quiet enough to measure a method on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kdbench.devices import backends
from kdbench.devices.clock import Arm, Clock
from kdbench.overhead.timing import FULL, Budget, measure_builds
from kdbench.stats.step_ratio import RatioEstimate


@dataclass(frozen=True)
class AAGate:
    """Plain against plain: what a machine makes of equal arms.

    Attributes:
        ratio, lo, hi: as in :class:`RatioEstimate`.
        passed: the interval holds 1 and the ratio is within the device's ``aa_limit``. By definition a 95 % interval
            misses 1 on one quiet machine in twenty.
    """

    ratio: float
    lo: float
    hi: float
    passed: bool

    @classmethod
    def of(cls, found: RatioEstimate, device: torch.device) -> AAGate:
        """The gate's verdict on two equal arms measured against each other."""
        passed = found.lo <= 1 <= found.hi and abs(found.ratio - 1) <= backends.of(device).timing.aa_limit
        return cls(found.ratio, found.lo, found.hi, passed)


def aa_gate(
    plain: Callable[[], Arm], device: torch.device, *, budget: Budget = FULL, clock: Clock | None = None
) -> AAGate:
    """Measures two equal arms; a machine that tells them apart is too noisy to measure a method on.

    Args:
        plain: builds a plain arm.
        device, budget, clock: as in :func:`measure_pairs`.
    """
    return AAGate.of(measure_builds(plain, plain, device, budget=budget, clock=clock)[0], device)
