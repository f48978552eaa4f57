"""The devices of a sweep, the launcher that takes its runs there, and whose records stand for its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.devices import backends
from kdbench.devices.deviceclass import DeviceClass
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.sweep import launch


@dataclass(frozen=True)
class Where:
    """Where runs take place, and who takes them there.

    Attributes:
        devices: shared out among the runs that take place at once.
        belongs: whether a record of this device class is one of the sweep's own.
        jobs: how many runs take place at once.
        here: on this machine.
        launcher: its name; ``launcher_options`` are those of Hydra, as ``key=value``.
        timeout: seconds a run may take, teacher's training and measurement included; None for no limit. Runs that take
            turns have as many times that, together.
    """

    devices: tuple[str, ...]
    belongs: Callable[[str], bool]
    jobs: int
    here: bool = True
    launcher: str = "basic"
    launcher_options: tuple[str, ...] = ()
    timeout: float | None = None

    @property
    def alone(self) -> int:
        """How many runs that measure may take place at once: on a cluster each has a machine's share of its own."""
        return 1 if self.here else self.jobs


def find(
    launcher: str,
    device: str,
    jobs: int | None,
    per_device: int | None,
    options: EngineOptions = EAGER,
    launcher_options: Sequence[str] = (),
    timeout: float | None = None,
) -> Where:
    """The devices a launcher's jobs have.

    Args:
        device: ``auto`` and a backend's name stand for all its devices of this machine; a cluster's are known to its
            jobs alone.
        options: engine options of the runs; records of other options are not the sweep's.
        jobs, per_device: at most one of the two; neither means one run a device, and as many as fit on a cluster.
        launcher_options, timeout: as of :class:`Where`.

    Raises:
        UserError: no such launcher or device, an option or a number of jobs that the launcher does not take.
    """
    of_launcher = launch.require(launcher)
    if jobs is not None and per_device is not None:
        raise UserError("give --jobs or --jobs-per-device, not both")
    devices, belongs = (_here if of_launcher.here else _of_cluster)(device, options)
    if not of_launcher.here:
        if per_device is not None:
            raise UserError(f"--jobs-per-device shares out this machine's devices, {launcher} has others; use --jobs")
        count = jobs or of_launcher.limit or 1
    elif of_launcher.serial:
        count = jobs or per_device or 1
        if count > 1:
            raise UserError(
                f"--launcher {launcher} does one run at a time, not {count}; --launcher joblib does several"
            )
        if idle := devices[1:]:
            Progress.silent().say(
                f"--launcher {launcher} takes {devices[0]} and leaves {', '.join(idle)} idle; "
                "--launcher joblib takes all"
            )
            devices = devices[:1]
    else:
        count = jobs or (per_device or 1) * len(devices)
    launch.check(launcher, launch.options(launcher, count, timeout, launcher_options))
    return Where(devices, belongs, count, of_launcher.here, launcher, tuple(launcher_options), timeout)


def _of_cluster(device: str, options: EngineOptions) -> tuple[tuple[str, ...], Callable[[str], bool]]:
    """A kind of devices, and all classes of that kind, for a cluster's are known to its jobs alone."""
    if device not in ("auto", *backends.names()):
        raise UserError(f"--device {device!r}: a job of a cluster has devices of its own; use {backends.words()}")

    def belongs(found: str) -> bool:
        one = DeviceClass.parse(found)
        return device in ("auto", one.kind) and one.runs_like(options)

    return (device,), belongs


def _here(device: str, options: EngineOptions) -> tuple[tuple[str, ...], Callable[[str], bool]]:
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
    return tuple(map(backends.written, alike)), own.__eq__
