"""Inference latency of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from kdbench.devices import backends
from kdbench.devices.clock import Clock, quiet_gc

T = TypeVar("T")

WARMUP_CALLS, FEWEST_CALLS, MOST_CALLS = 10, 5, 500


@dataclass(frozen=True)
class Latency:
    """Time from a call to its finished result.

    Attributes:
        median_ms, q1_ms, q3_ms: quartiles over calls, ms.
        calls: calls measured.
    """

    median_ms: float
    q1_ms: float
    q3_ms: float
    calls: int


def latency(
    forward: Callable[[T], object],
    inputs: Mapping[int, T],
    device: torch.device,
    *,
    seconds: float = 3.0,
    clock: Clock | None = None,
) -> dict[int, Latency]:
    """Latency by batch size; each call is waited for before the next.

    Args:
        forward: the network, in eval mode, called without gradients.
        inputs: batch size to an input of that size on the device, normally of 1 and of 128 rows.
        device: where it runs.
        seconds: time limit for each size, warm-up apart; at least ``FEWEST_CALLS`` are measured.
        clock: the clock to read; the device's own unless given.
    """
    clock = clock or backends.of(device).clock(device)
    found = {}
    for size, given in inputs.items():
        with quiet_gc():
            clock.steps(lambda x=given: forward(x), WARMUP_CALLS, clock.now() + seconds)  # type: ignore[misc]
            taken: list[float] = []
            until = clock.now() + seconds
            while len(taken) < FEWEST_CALLS or (len(taken) < MOST_CALLS and clock.now() < until):
                taken.append(1000 * clock.block(lambda x=given: forward(x), 1))  # type: ignore[misc]
        q1, middle, q3 = np.percentile(taken, [25, 50, 75])
        found[size] = Latency(float(middle), float(q1), float(q3), len(taken))
    return found
