"""NVIDIA's cards, by ``torch.cuda`` and NVML."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.devices.accelerator import Accelerator
from kdbench.devices.base import Board, Speed, Timing
from kdbench.devices.nvml import Nvml

if TYPE_CHECKING:
    import torch

    from kdbench.devices.graphs import Graphs
    from kdbench.devices.lanes import Lane

AMPERE = 8
"""Major number of the first compute capability with TF32."""
DRIVER = Path("/proc/driver/nvidia/version")


def _driver() -> str | None:
    """Version of the driver by the kernel's word."""
    try:
        text = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


class Cuda(Accelerator):
    """Blocks of steps stay whole: the host runs ahead, and in short turns one arm's launches would hide behind the
    other's kernels.
    """

    name = type = "cuda"
    title = "CUDA"
    collective = "cpu:gloo,cuda:nccl"  # CPU tensors have a way of their own: what is told waits for no kernel
    visible = "CUDA_VISIBLE_DEVICES"
    timing = Timing(slice_s=math.inf, aa_limit=0.02, half_width=0.01, limit_s={"quick": 2.0, "full": 24.0})

    def absent(self) -> str | None:
        import torch

        if torch.version.hip is not None:
            return "this torch is built for AMD's cards; use --device rocm"
        with warnings.catch_warnings():  # the reason is given here
            warnings.simplefilter("ignore")
            if self.api.is_available():
                return None
            return self._broken() if self.noticed() else f"torch sees no {self.title} device here"

    def noticed(self) -> bool:
        import torch

        return torch.version.hip is None and bool(self.api.device_count())  # NVML counts without a working driver

    def _broken(self) -> str:
        """Why the cards that NVML counts cannot be used."""
        import torch

        try:
            self.api.init()
            reason = "torch cannot use it"
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        driver = _driver()
        return (
            f"torch cannot use the card ({reason}); driver {driver or 'unknown'}, torch is built for CUDA "
            f"{torch.version.cuda}: install a newer driver, or a torch for an older CUDA"
        )

    def facts(self, device: torch.device) -> dict[str, Any]:
        board, seen = Nvml.open(device), self.api.get_device_properties(device)
        return {
            "driver": board.driver() if board else _driver(),
            "gpu": {
                "name": seen.name,
                "mem_mib": seen.total_memory // 2**20,
                "power_limit_w": board.power_limit_w() if board else None,
                "mig": board.mig() if board else None,
            },
        }

    def remarks(self) -> list[str]:
        lines = [] if importlib.util.find_spec("pynvml") else ["nvidia-ml-py is not installed: no energy, no clocks"]
        if missing := self.no_compiler():
            lines.append(f"engine.compile: {missing}")
        built = {int(arch[3:].rstrip("af")) for arch in self.api.get_arch_list() if arch.startswith("sm_")}
        for device in self.devices():
            major, minor = self.api.get_device_capability(device)
            if built and all(arch // 10 != major or arch % 10 > minor for arch in built):
                lines.append(f"{device}: torch has no kernels for its compute capability {major}.{minor}")
            if reason := self.no_second_process(device):
                lines.append(f"{device}: no cost can be measured: {reason}")
        return lines

    def likely(self) -> bool:
        return DRIVER.exists()

    def speed(self) -> Speed:
        return Speed(3e6, 0.010)

    def no_second_process(self, device: torch.device) -> str | None:
        board = Nvml.open(device)
        if board is None or not board.exclusive():
            return None
        return "the card is in exclusive-process mode; `nvidia-smi --compute-mode=DEFAULT` lets a second process in"

    def no_graphs(self) -> str | None:
        return None

    def graphs(self, device: torch.device, rngs: Sequence[torch.Generator]) -> Graphs:
        from kdbench.devices.graphs import CudaGraphs

        return CudaGraphs(device, rngs)

    def lane(self, device: torch.device) -> Lane:
        from kdbench.devices.lanes import CudaLane

        return CudaLane(self, device)

    def no_compiler(self) -> str | None:
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; install it"
        if any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
            return None
        return "triton finds no C compiler on the PATH; install gcc or clang"

    def no_tf32(self, device: torch.device) -> str | None:
        old = self.api.get_device_capability(device)[0] < AMPERE
        return f"{self.model(device)} is older than Ampere and has no TF32" if old else None

    def set_products(self, tf32: bool) -> None:
        import torch

        # By torch's older names: they set the newer fp32_precision too, which alone would make these names raise.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32

    def products(self) -> dict[str, str | None]:
        import torch

        cudnn: Any = torch.backends.cudnn
        said: dict[str, Any] = {
            "conv_fp32": cudnn.conv.fp32_precision,
            "matmul_fp32": torch.backends.cuda.matmul.fp32_precision,
        }
        return {name: "ieee" if value == "none" else value for name, value in said.items()}

    def board(self, device: torch.device) -> Board | None:
        return Nvml.open(device)

    def no_board(self) -> str:
        if importlib.util.find_spec("pynvml") is None:
            return "nvidia-ml-py is not installed"
        return "NVML does not answer"


BACKEND = Cuda()
