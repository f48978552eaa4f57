"""The two arms of a measurement: the steps of a method, stage by stage, and of plain, on fixed rings of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from torch import nn

from kdbench.contract import Batch, Stage
from kdbench.engine.assemble import Prepared
from kdbench.engine.stage import StageRun

RING = 8
"""Batches of an arm's ring: varying content, constant shape."""


@dataclass(frozen=True)
class PhaseArm:
    """One stage of a method as an arm.

    Attributes:
        steps: optimiser steps the stage has in a whole run.
        rows: labelled rows of a step; a row seen in several views counts once.
        step: one step on the next batch of the ring.
        counted: the same with every operator launched, for what counts operators or their memory.
        forward: the losses of one batch without backward, None for a stage that is one whole update.
        fed: one step on the given batch, for a measurement with the real loader.
    """

    stage: Stage
    run: StageRun
    steps: int
    rows: int
    step: Callable[[], None]
    counted: Callable[[], None]
    forward: Callable[[], None] | None
    fed: Callable[[Batch], None]


def _ring(run: StageRun) -> Callable[[int], Batch]:
    """A draw that cycles over ``RING`` whole batches, loaded beforehand."""
    whole = max(1, run.loader.steps - (1 if len(run.loader.rows.y) % run.loader.batch else 0))
    numbers = (epoch * run.loader.steps + i for epoch in range(RING) for i in range(whole))
    batches = [run.loader.draw(number) for number in islice(numbers, RING)]
    return lambda number: batches[number % RING]


def _phase(prepared: Prepared, stage: Stage) -> PhaseArm:
    fed_batch: list[Batch] = []
    with closing(StageRun(prepared.method, stage, prepared.task)) as loaded:
        ring = _ring(loaded)
    run = StageRun(
        prepared.method, stage, prepared.task, draw=lambda number: fed_batch[0] if fed_batch else ring(number)
    )

    def step(eagerly: bool = False) -> None:
        if run.step_number >= run.total:  # a measurement may be longer than the stage: schedules start again
            run.step_number = 0
        run.step(eagerly=eagerly)

    def counted() -> None:
        step(eagerly=True)

    def fed(batch: Batch) -> None:
        fed_batch[:] = [batch]
        step()
        fed_batch.clear()

    def forward() -> None:
        assert stage.losses is not None
        stage.losses(ring(0), run.at())

    return PhaseArm(
        stage, run, run.total, run.loader.batch, step, counted, forward if stage.losses is not None else None, fed
    )  # fmt: skip


def phases(prepared: Prepared) -> Iterator[PhaseArm]:
    """The stages of a prepared method, one at a time: measure each before asking for the next."""
    for stage in prepared.method.stages():
        prepared.method.to(prepared.task.device).train()
        yield _phase(prepared, stage)


def trained_parameters(stage: Stage) -> dict[int, nn.Parameter]:
    """Parameters a stage updates, by identity."""
    return {id(p): p for group in stage.groups for p in group.params}
