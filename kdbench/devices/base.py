"""What kdbench asks of a kind of device; its backend states all of it. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdbench.devices.clock import Clock
    from kdbench.devices.graphs import Graphs
    from kdbench.devices.lanes import Lane


@dataclass(frozen=True)
class Timing:
    """How steps are measured on a kind of device.

    Attributes:
        slice_s: shortest slice of a block, seconds: several time slices of an operating system. Infinite where blocks
            stay whole.
        aa_limit: largest abs(ratio - 1) of plain against plain on a machine quiet enough to publish from.
        half_width: relative half-width of the interval that is wanted.
        limit_s: mode to limit on the pairs of blocks of a build, seconds.
    """

    slice_s: float
    aa_limit: float
    half_width: float
    limit_s: Mapping[Literal["quick", "full"], float]


@dataclass(frozen=True)
class Speed:
    """Million multiply-adds a second in training, and seconds that every step costs on top."""

    macs: float
    step: float


class Board(Protocol):
    """What is asked of a device's own sensors; None where it does not tell."""

    source: str
    """What records call its energy counter."""

    def energy_mj(self) -> int | None:
        """Energy counter of the whole board, mJ."""

    def mig(self) -> bool:
        """Whether the board is split into instances."""

    def other_processes(self, own: int = 1) -> int | None:
        """Processes on the board beside ``own``, which all hold it already."""

    def utilisation(self) -> int | None:
        """Recent utilisation, %."""

    def sm_clock_mhz(self) -> int | None:
        """Clock of its processors now, MHz."""

    def temperature_c(self) -> int | None:
        """Temperature now, °C."""


class Backend(ABC):
    """A kind of device: whether it is there, and how it is asked.

    Attributes:
        name: in ``--device`` and at the head of device classes.
        title: in sentences.
        type: what torch calls such a device. Two backends may share it: torch says ``cuda`` to AMD's cards too.
        on_host: work is done when the call returns, in the host's memory.
        collective: backend of ``torch.distributed`` for processes that share a run.
        visible: environment variable that says which of its devices a process sees, None without one.
        pins: batches reach it faster from page-locked memory.
        refused: why no run takes place on such devices, whatever the machine; None where they may.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    type: ClassVar[str]
    on_host: ClassVar[bool] = False
    timing: ClassVar[Timing]
    collective: ClassVar[str]
    visible: ClassVar[str | None] = None
    pins: ClassVar[bool] = False
    refused: ClassVar[str | None] = None

    # Is it there?

    @abstractmethod
    def absent(self) -> str | None:
        """Why no run can take place on it, in words that follow a colon; None where one can."""

    def noticed(self) -> bool:
        """Whether this machine has such devices, though no run can take place on them."""
        return False

    @abstractmethod
    def devices(self) -> Sequence[torch.device]:
        """Those that this process sees."""

    def model(self, device: torch.device) -> str:
        """What the maker calls a device, "" where that decides no comparison."""
        return ""

    def facts(self, device: torch.device) -> dict[str, Any]:
        """``driver`` and ``gpu`` of a record, the latter as :class:`kdbench.records.schema.Gpu` less ``count``."""
        return {"driver": None, "gpu": None}

    def remarks(self) -> list[str]:
        """What its devices lack on this machine, a line each."""
        return []

    def likely(self) -> bool:
        """Whether this machine seems to have one, told without torch."""
        return False

    @abstractmethod
    def speed(self) -> Speed:
        """Rough speed of one, told without torch."""

    # Work

    @abstractmethod
    def make_current(self, device: torch.device) -> None:
        """What this process gives to no device in particular goes to this one."""

    @abstractmethod
    def synchronize(self, device: torch.device) -> None:
        """Waits until the device has done all it was given."""

    def answers(self, device: torch.device) -> bool:
        """Whether it takes work of this process: after some errors an accelerator does not, to the process's end."""
        try:
            self.synchronize(device)
        except RuntimeError:
            return False
        return True

    @abstractmethod
    def clock(self, device: torch.device) -> Clock:
        """Times steps."""

    def wall(self, device: torch.device) -> Clock:
        """Times steps where waiting for the host counts."""
        return self.clock(device)

    def no_second_process(self, device: torch.device) -> str | None:
        """Why no other process can use a device that this one uses, and what to do; None where one can."""
        return None

    def no_graphs(self) -> str | None:
        """Why no step can be captured on it; None where one can."""
        return f"there are none on {self.name}"

    def graphs(self, device: torch.device, rngs: Sequence[torch.Generator]) -> Graphs:
        """Captures steps that draw from ``rngs``; only where :meth:`no_graphs` gives None."""
        raise NotImplementedError

    def no_compiler(self) -> str | None:
        """What ``torch.compile`` lacks for it here, and how to get it; None where it lacks nothing."""
        return None

    def no_tf32(self, device: torch.device) -> str | None:
        """Why fp32 products cannot be computed in TF32 on it; None where they can."""
        return f"{self.title} devices have no TF32"

    def set_products(self, tf32: bool) -> None:  # noqa: B027  # on most devices there is one way
        """Convolutions and matrix products of fp32 tensors in this process are in TF32, or of all 24 bits."""

    def products(self) -> dict[str, str | None]:
        """``conv_fp32`` and ``matmul_fp32``: how fp32 products are computed in this process; None where in one way."""
        return {"conv_fp32": None, "matmul_fp32": None}

    # Random state: of the global generator on the device, the CPU's is the engine's own

    def random_in_use(self) -> bool:
        """Whether generators of its devices may have drawn in this process."""
        return False

    def random_state(self, device: torch.device) -> Tensor | None:
        """State of the device's global generator, None where that is the CPU's."""
        return None

    def set_random_state(self, device: torch.device, state: Tensor) -> None:
        """Restores what :meth:`random_state` gave."""
        raise NotImplementedError

    def lane(self, device: torch.device) -> Lane:
        """What one of several runs that take turns in this process has for itself on a device."""
        from kdbench.devices.lanes import Lane

        return Lane(self, device)

    # Memory, of devices that are not the host's

    def release_memory(self, device: torch.device) -> None:  # noqa: B027  # most allocators keep nothing
        """What this process's allocator keeps for later goes back to the device."""

    def reset_peak_memory(self, device: torch.device) -> None:
        """The peaks start anew."""
        raise NotImplementedError

    def peak_memory(self, device: torch.device) -> tuple[int, int]:
        """Most bytes that the allocator handed out, and that it held, since the peaks were reset."""
        raise NotImplementedError

    # Sensors

    def board(self, device: torch.device) -> Board | None:
        """The device's sensors, None where there are none to ask."""
        return None

    def no_board(self) -> str:
        """Why there are no sensors to ask."""
        return f"no energy counter of {self.title} devices can be read"
