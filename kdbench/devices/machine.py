"""Facts of the machine a run was made on: never its name, its user, a path or an address."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.devices.deviceclass import DeviceClass
from kdbench.devices.nvml import Nvml
from kdbench.parallel.torchrun import Launch
from kdbench.specs.options import EAGER, EngineOptions

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "datasets", "safetensors", "pydantic",
    "hydra-core", "omegaconf", "duckdb", "nvidia-ml-py",
)  # fmt: skip
"""Distributions whose versions a record names beside those of plugins; others are in ``packages_sha256`` only."""


def _os() -> str:
    """System, kernel series, architecture and distribution; a full kernel release may name a machine's owner."""
    series = ".".join(re.findall(r"\d+", platform.release())[:2])
    name = f"{platform.system()} {series} {platform.machine()}"
    try:
        return f"{name}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return name


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ram_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _packages() -> tuple[dict[str, str], str]:
    """Versions of ``PACKAGES`` and of plugins, and a digest of the names and versions of all distributions."""
    installed: dict[str, str] = {}
    for found in metadata.distributions():  # as on import: the first of a name on the path is the one in use
        if name := found.metadata["Name"]:
            installed.setdefault(re.sub(r"[-_.]+", "-", name).lower(), found.version)
    named = {name: installed[name] for name in (*PACKAGES, *sorted(plugins.distributions())) if name in installed}
    return named, sha256("\n".join(f"{name}=={version}" for name, version in sorted(installed.items())))


def _driver(board: Nvml | None) -> str | None:
    if board is not None:
        return board.driver()
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """What a record says of the machine. Imports torch.

    Args:
        device: where the run takes place; the graphics card is described only if it is one.

    Returns:
        ``os, python, torch, cuda, cudnn, driver, gpu{name, count, mem_mib, power_limit_w, mig}, cpu, cores, threads,
        ram_gib, flags{tf32, cudnn_benchmark, deterministic}, packages, packages_sha256``; ``driver`` and ``gpu`` are
        None on a CPU, ``power_limit_w`` and ``mig`` where NVML is missing.
    """
    import torch

    gpu, driver = None, None
    if device is not None and device.type == "cuda":
        board, seen = Nvml.open(device), torch.cuda.get_device_properties(device)
        driver = _driver(board)
        gpu = {
            "name": seen.name,
            "count": torch.cuda.device_count(),
            "mem_mib": seen.total_memory // 2**20,
            "power_limit_w": board.power_limit_w() if board else None,
            "mig": board.mig() if board else None,
        }
    packages, packages_sha256 = _packages()
    return {
        "os": _os(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None,
        "driver": driver,
        "gpu": gpu,
        "cpu": _cpu(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "ram_gib": _ram_gib(),
        "flags": {
            "tf32": torch.get_float32_matmul_precision() != "highest",
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
        "packages": packages,
        "packages_sha256": packages_sha256,
    }


def device_class(device: torch.device, options: EngineOptions = EAGER, world_size: int = 1) -> str:
    """What must be equal for rows to be compared, e.g. ``cuda:NVIDIA-H100-80GB-HBM3/bf16/x1/compile``.

    Args:
        device: CPU or CUDA device.
        options: engine options in force.
        world_size: processes of the run.

    Returns:
        The written form of a :class:`DeviceClass`: parts of ``[A-Za-z0-9._-]`` joined by ``/``.
    """
    named = device.type
    if named == "cuda":
        import torch

        model = re.sub(r"[^A-Za-z0-9._]+", "-", torch.cuda.get_device_name(device)).strip("-")
        named = f"cuda:{model}"
    return str(DeviceClass.of(named, options, world_size))


def pick_device(text: str, shared: Launch | None = None) -> torch.device:
    """The device a user names: ``auto`` (the first GPU if there is one), ``cpu``, ``cuda`` or ``cuda:<i>``.

    Args:
        shared: this process's place among those of one run; each takes the GPU of its number.

    Raises:
        UserError: another word, no CUDA, or a number there is no GPU for.
    """
    form = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", text)
    if form is None:
        raise UserError(f"--device {text!r} is not known; use auto, cpu, cuda or cuda:<number>")
    import torch

    count = torch.cuda.device_count() if text != "cpu" and torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise UserError(f"--device {text}: torch sees no CUDA device here; use --device cpu or --device auto")
    if shared is not None:
        if form[1] is not None or shared.local_size > count:
            raise UserError(
                f"--device {text}: {shared.local_size} processes take a CUDA device each, and there are {count}; use "
                "--device cuda and as many processes as devices, or --device cpu"
            )
        torch.cuda.set_device(shared.local_rank)
        return torch.device("cuda", shared.local_rank)
    index = int(form[1] or 0)
    if index >= count:
        raise UserError(f"--device {text}: there are {count} CUDA devices, counted from cuda:0; use --device cuda:0")
    return torch.device("cuda", index)


def contended(device: torch.device) -> bool | None:
    """Whether other processes are on a GPU now; None for a CPU, or where NVML cannot tell."""
    board = Nvml.open(device)
    if board is None:
        return None
    import torch

    torch.cuda.synchronize(device)  # this process must hold the GPU too, for it is subtracted from the list
    others = board.other_processes()
    return None if others is None else others > 0
