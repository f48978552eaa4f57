"""What a sweep asks of a launcher's job, and the job of the process that trains; what they answer. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.specs.order import ConfigOrder, Mode, Order

if TYPE_CHECKING:
    from kdbench.runs.request import Request


class RunOrder(Order):
    """One run of a cell, or several that take turns in one process.

    Attributes:
        seeds: of the runs, each once.
        retry: run again what failed before.
        track: names of the trackers that are told of it.
        home: root of the home folder; ``data`` is the user's data folder, None for the hub.
    """

    config: ConfigOrder
    seeds: tuple[int, ...]
    overhead: Mode
    retry: bool
    home: Path
    data: Path | None
    track: tuple[str, ...] = ()

    def requests(self, device: str, progress: Sequence[Progress]) -> list[Request]:
        """The runs on a device. Imports torch.

        Args:
            progress: of each run, shows how far it is.

        Raises:
            UserError: a name is not known here, or there is no such device.
        """
        from kdbench.devices.machine import take_device
        from kdbench.runs.request import Request

        place, config, home = take_device(device), self.config.config(), Home(self.home)
        return [
            Request(
                config, seed, place, home, self.data, self.overhead, retry=self.retry, progress=own, track=self.track
            )
            for seed, own in zip(self.seeds, progress, strict=True)
        ]


class JobOrder(Order):
    """Runs of one process and the machine it may take.

    Attributes:
        devices: one of them by the job's slot.
        slots: runs at once on this machine, 0 for no limit.
        share: jobs that share this machine's cores, each with at most ``most_threads``.
        visible: what the sweep's own process has in the variables by which backends hide devices, None for one that is
            not set; none leaves them as the launcher set them.
        timeout: seconds a run may take, None for no limit; several have as many times that.
        last: of one run alone, its process died before: now that is recorded.
        parent: number of the sweep's own process.
    """

    run: RunOrder
    devices: tuple[str, ...]
    slots: int
    share: int
    most_threads: int | None
    visible: dict[str, str | None]
    timeout: float | None
    last: bool
    parent: int


class GivenUp(Order):
    """What is recorded of a run that was ended: status, kind and message of its error."""

    status: Literal["timeout", "failed"]
    kind: str
    message: str


class TrainOrder(Order):
    """Runs on a device; ``states`` are the files that tell of each when it began. With ``given_up`` it is recorded, not
    run."""

    run: RunOrder
    device: str
    states: tuple[Path, ...]
    given_up: GivenUp | None = None


class Answer(Order):
    """What became of a run, from the process that trains through the launcher's worker to the sweep.

    Attributes:
        seed: of the run.
        outcome: ``recorded``; ``busy``, another process does this run; ``refused``, an error a user can act on;
            ``died``, the process that trained was killed and the run may be tried again.
        line: for people.
        status: of the record, None where there is none.
    """

    seed: int
    outcome: Literal["recorded", "busy", "refused", "died"]
    line: str
    status: str | None = None
