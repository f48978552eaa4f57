"""The devices of a sweep, and whose records stand for its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.devices import backends
from kdbench.devices.deviceclass import DeviceClass
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.sweep.launch import LAUNCHERS


@dataclass(frozen=True)
class Where:
    """Where runs take place.

    Attributes:
        devices: shared out among the runs that take place at once.
        belongs: whether a record of this device class is one of the sweep's own.
        jobs: how many runs take place at once.
        here: on this machine.
    """

    devices: tuple[str, ...]
    belongs: Callable[[str], bool]
    jobs: int
    here: bool = True

    @property
    def alone(self) -> int:
        """How many runs that measure may take place at once: on a cluster each has a machine's share of its own."""
        return 1 if self.here else self.jobs


def find(launcher: str, device: str, jobs: int | None, per_device: int | None, options: EngineOptions = EAGER) -> Where:
    """The devices a launcher's jobs have.

    Args:
        device: ``auto`` and a backend's name stand for all its devices of this machine; a cluster's are known to its
            jobs alone.
        options: engine options of the runs; records of other options are not the sweep's.
        jobs, per_device: at most one of the two; neither means one run a device, and as many as fit on a cluster.

    Raises:
        UserError: no such device, or a number of jobs the launcher cannot run.
    """
    if jobs is not None and per_device is not None:
        raise UserError("give --jobs or --jobs-per-device, not both")
    if not LAUNCHERS[launcher].here:
        if device not in ("auto", *backends.names()):
            raise UserError(f"--device {device!r}: a job of a cluster has devices of its own; use {backends.words()}")
        if per_device is not None:
            raise UserError(f"--jobs-per-device shares out this machine's devices, {launcher} has others; use --jobs")
        kind = "" if device == "auto" else device

        def belongs(found: str) -> bool:
            one = DeviceClass.parse(found)
            return kind in ("", one.kind) and one.runs_like(options)

        return Where((device,), belongs, jobs or LAUNCHERS[launcher].limit or 1, False)
    devices, classes = _here(device, options)
    count = jobs or (per_device or 1) * len(devices)
    if launcher == "basic" and count > 1:
        raise UserError(f"--launcher basic does one run at a time, not {count}; --launcher joblib does several")
    return Where(devices, classes.__contains__, count)


def _here(device: str, options: EngineOptions) -> tuple[tuple[str, ...], set[str]]:
    """This machine's devices under a name, and their class: that of the first, for a cell's runs are of one.

    Imports torch.
    """
    from kdbench.devices.machine import device_class, pick_device

    first = pick_device(device)
    found = [first] if ":" in device else backends.of(first).devices()
    own = device_class(first, options)
    alike = [one for one in found if device_class(one, options) == own]
    if others := [backends.written(one) for one in found if one not in alike]:
        Progress.silent().say(
            f"--device {device} takes {', '.join(map(backends.written, alike))} and leaves out {', '.join(others)}: "
            "another model, whose runs are never compared with these; name it for a sweep of its own"
        )
    return tuple(map(backends.written, alike)), {own}
