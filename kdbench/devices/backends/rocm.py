"""AMD's cards: torch calls them ``cuda``, kdbench what they are. Never run on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdbench.devices.backends.cuda import Cuda
from kdbench.devices.base import Board

if TYPE_CHECKING:
    import torch


class Rocm(Cuda):
    """What torch's ``cuda`` offers there too, without NVML."""

    name = "rocm"
    title = "ROCm"
    visible = "HIP_VISIBLE_DEVICES"

    def absent(self) -> str | None:
        import torch

        if torch.version.hip is None:
            return "this torch is not built for AMD's cards"
        return None if self.api.is_available() else f"torch sees no {self.title} device here"

    def noticed(self) -> bool:
        return False

    def facts(self, device: torch.device) -> dict[str, Any]:
        seen = self.api.get_device_properties(device)
        nothing = {"power_limit_w": None, "mig": None}
        return {"driver": None, "gpu": {"name": seen.name, "mem_mib": seen.total_memory // 2**20, **nothing}}

    def remarks(self) -> list[str]:
        return ["kdbench was never tried on such cards; it reads no energy and no clocks of them"]

    def likely(self) -> bool:
        return False

    def no_tf32(self, device: torch.device) -> str | None:
        return f"kdbench knows of no TF32 on {self.title} devices"

    def products(self) -> dict[str, str | None]:
        return {"conv_fp32": None, "matmul_fp32": None}

    def board(self, device: torch.device) -> Board | None:
        return None

    def no_board(self) -> str:
        return "no energy counter of ROCm devices is read"


BACKEND = Rocm()
