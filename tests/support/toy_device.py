"""A kind of device outside kdbench, whole in one file: the host's processors, said to be an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdbench.devices.backends.cpu import Cpu
from kdbench.devices.base import Board, Speed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdbench.devices.graphs import Graphs

MIB = 2**20


class Beads:
    """Its sensors."""

    source = "beads"

    def energy_mj(self) -> int | None:
        return None

    def mig(self) -> bool:
        return False

    def other_processes(self, own: int = 1) -> int | None:
        return 0

    def utilisation(self) -> int | None:
        return 0

    def sm_clock_mhz(self) -> int | None:
        return 12

    def temperature_c(self) -> int | None:
        return 21


class Abacus(Cpu):
    """Everything that an accelerator offers, and torch's type ``cpu``.

    Attributes:
        asked: what this object was asked for, in order.
    """

    name = "abacus"
    title = "Abacus"
    on_host = False
    visible = "ABACUS_VISIBLE"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def model(self, device: torch.device) -> str:
        return "Soroban 23"

    def facts(self, device: torch.device) -> dict[str, Any]:
        own = {"name": "Soroban 23", "count": 1, "mem_mib": 1, "power_limit_w": None, "mig": None}
        return {"driver": "1.2", "gpu": own}

    def speed(self) -> Speed:
        return Speed(1.0, 1.0)

    def make_current(self, device: torch.device) -> None:
        self.asked.append("make current")

    def no_graphs(self) -> str | None:
        return None

    def graphs(self, device: torch.device, rngs: Sequence[torch.Generator]) -> Graphs:
        from kdbench.checks.replayed import CpuGraphs

        self.asked.append("graphs")
        return CpuGraphs(device, rngs)

    def random_state(self, device: torch.device) -> Tensor:
        import torch

        self.asked.append("random state")
        return torch.tensor([23], dtype=torch.uint8)

    def set_random_state(self, device: torch.device, state: Tensor) -> None:
        assert state.tolist() == [23]
        self.asked.append("set random state")

    def reset_peak_memory(self, device: torch.device) -> None:
        self.asked.append("reset peak")

    def peak_memory(self, device: torch.device) -> tuple[int, int]:
        return 7 * MIB, 9 * MIB

    def board(self, device: torch.device) -> Board:
        return Beads()


BACKEND = Abacus()
