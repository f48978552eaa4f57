"""Training with the real loader: how long the host waits for batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from kdbench.devices import backends
from kdbench.devices.clock import Clock
from kdbench.overhead.timing import WARMUP_GROUP

T = TypeVar("T")


@dataclass(frozen=True)
class DataWait:
    """Training with the real loader.

    Attributes:
        fraction: share of the time in which the host waited for a batch. On a GPU that waits while the device still
            works on the step before count too, so this is an upper bound of what the loader costs; ``samples_s``
            against the throughput of staged batches is the cost itself.
        samples_s: student labelled samples per second.
        steps: steps measured.
    """

    fraction: float
    samples_s: float
    steps: int


def data_wait(
    draw: Callable[[], T],
    step: Callable[[T], object],
    rows: Callable[[T], int],
    device: torch.device,
    *,
    seconds: float = 5.0,
    clock: Clock | None = None,
) -> DataWait:
    """Steps fed by a loader, after ``WARMUP_GROUP`` untimed ones.

    Args:
        draw: the next batch, endlessly.
        step: one optimiser step on it.
        rows: labelled samples of a batch; a sample seen in several views counts once.
        device: where the steps run.
        seconds: least time to measure; at least ``WARMUP_GROUP`` steps are.
        clock: as in :func:`measure_pairs`.
    """
    clock = clock or backends.of(device).wall(device)  # waiting is what is measured here
    for _ in range(WARMUP_GROUP):
        step(draw())
    clock.synchronize()
    waited, samples, steps = 0.0, 0, 0
    start = clock.now()
    while steps < WARMUP_GROUP or clock.now() - start < seconds:
        asked = clock.now()
        batch = draw()
        waited += clock.now() - asked
        step(batch)
        samples += rows(batch)
        steps += 1
    clock.synchronize()
    took = clock.now() - start
    return DataWait(waited / took, samples / took, steps)
