"""What the fresh process that measures is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from kdbench.base.home import Home
from kdbench.engine.place import RunPlace
from kdbench.specs.order import ConfigOrder, Order


class MeasureOrder(Order):
    """One part of a cell's measurement.

    Attributes:
        device, data, folder: of the run, see :class:`RunPlace`; ``home`` is the root of its home folder.
        stages: number of the method's stages; they share the time.
        gate: also measure plain against plain.
        part: times and counts, or on a GPU the memory of one arm.
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
