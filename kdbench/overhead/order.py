"""What the fresh process that measures is asked for, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator

from kdbench.base.fields import Above0, Count, Positive, Slug, Word, some_of
from kdbench.base.home import Home
from kdbench.engine.place import RunPlace
from kdbench.overhead.energy import MeasuredEnergy
from kdbench.overhead.gate import AAGate
from kdbench.overhead.memory import PeakMemory
from kdbench.records.schema import Deploy
from kdbench.records.schema.overhead import BoardState, Builds, Measured
from kdbench.specs.order import ConfigOrder, Order

Quantities = Annotated[dict[str, Any], AfterValidator(some_of(Measured))]
"""Fields of a record's ``overhead`` block as they are measured; their types and units stand there alone."""
DeployCosts = Annotated[dict[str, Any], AfterValidator(some_of(Deploy))]
"""Fields of a record's ``deploy`` block."""


class MeasureOrder(Order):
    """One part of a cell's measurement.

    Attributes:
        device, data, folder: of the run, see :class:`RunPlace`; ``home`` is the root of its home folder.
        stages: number of the method's stages; they share the time.
        gate: also measure plain against plain.
        part: times and counts, answered by :class:`Times`, or on a GPU the memory of one arm, by :class:`Peak`.
    """

    config: ConfigOrder
    seed: int
    device: str
    home: Path
    data: Path | None
    folder: Path
    mode: Literal["quick", "full"]
    stages: int
    gate: bool
    part: Literal["times", "memory-method", "memory-plain"] = "times"

    @property
    def place(self) -> RunPlace:
        """Where the measurement happens."""
        return RunPlace(torch.device(self.device), Home(self.home), self.data, self.folder)


class PhaseFacts(Order):
    """What one look at a phase gives.

    Attributes:
        steps: optimiser steps of a whole run; the phase's weight.
        rows: labelled samples of a step, each seen in ``views`` views.
        flops: counted of one step; ``uncounted_ops`` had no formula.
        peak: of one step; None on a GPU, where each arm's is another order.
        energy: None where there is no board to ask, or in quick mode.
        quantities: those of a step, averaged over the phases by their steps; one that is null in any phase is null.
    """

    name: Slug
    steps: Count
    rows: Positive
    views: Positive
    flops: Count
    flop_counter: Word
    uncounted_ops: tuple[Word, ...]
    peak: PeakMemory | None
    energy: MeasuredEnergy | None
    quantities: Quantities


class MeasuredPhase(Order):
    """A phase with its pairs of blocks, build by build; ``first_step_ms`` is the method's in the first build."""

    facts: PhaseFacts
    first_step_ms: Above0
    builds: Builds
    converged: bool


class CellCosts(Order):
    """What one look at the whole of plain and of the method gives.

    Attributes:
        plain_peak: of plain's step; None on a GPU.
        quantities: go into the record as they are.
        deploy: costs of the deployed network.
    """

    plain_peak: PeakMemory | None
    quantities: Quantities
    deploy: DeployCosts


class Times(Order):
    """The answer to ``times``; ``gate`` is plain against plain, None where it was not asked for."""

    phases: tuple[MeasuredPhase, ...]
    board: tuple[BoardState, ...]
    gate: AAGate | None
    costs: CellCosts


class Peak(Order):
    """The answer to ``memory-method`` and ``memory-plain``: the highest of the arm's phases."""

    peak: PeakMemory
