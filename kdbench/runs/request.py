"""What to run and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from kdbench.base.files import sha256
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.data.feed.dataset import Dataset
from kdbench.devices.machine import device_class
from kdbench.engine.assemble import load_data
from kdbench.engine.common import Common
from kdbench.engine.place import RunPlace
from kdbench.parallel.ranks import Ranks
from kdbench.specs.config import RunConfig
from kdbench.specs.order import Mode


@dataclass(frozen=True)
class Request:
    """What to run and where.

    Attributes:
        data: the user's data folder, None for the hub.
        overhead: how the cell's overhead is measured, unless another seed has done so.
        force: run again although a record is there.
        retry: run again what failed before.
        ranks: the processes that share the run.
        track: names of trackers that are told of the run.
        common: what it shares with the runs of its process that take turns with it; None of a run alone.
    """

    config: RunConfig
    seed: int
    device: torch.device
    home: Home
    data: Path | None = None
    overhead: Mode = "full"
    force: bool = False
    retry: bool = True
    progress: Progress = field(default_factory=Progress.silent)
    checkpoint_seconds: float | None = None
    ranks: Ranks = field(default_factory=Ranks)
    track: tuple[str, ...] = ()
    common: Common | None = None

    @property
    def device_class(self) -> str:
        """What must be equal for rows to be compared."""
        return device_class(self.device, self.config.engine, self.ranks.size)

    @property
    def cell(self) -> str:
        """What lines call the runs that differ in their seed alone."""
        return f"{self.config.method.ref.name} on {self.config.task.name}"

    @property
    def name(self) -> str:
        """What lines call it."""
        return f"{self.cell}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where it keeps what it needs until its record is written."""
        return self.home.runs / self.key

    @property
    def place(self) -> RunPlace:
        """Where it happens."""
        return RunPlace(self.device, self.home, self.data, self.folder, self.progress, self.ranks, self.common)

    def load(self) -> Dataset:
        """All rows of its task.

        Raises:
            UserError: they are absent or damaged.
        """

        def load() -> Dataset:
            return load_data(self.config, self.data, self.home, self.progress)

        return load() if self.common is None else self.common.rows(load)

    @property
    def key(self) -> str:
        """This run, so that it is found again after a crash."""
        return sha256(f"{self.config.spec_hash}/{self.device_class}/{self.seed}")[:32]
