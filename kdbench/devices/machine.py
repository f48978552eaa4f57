"""Facts of the machine a run was made on: never its name, its user, a path or an address."""

from __future__ import annotations

import functools
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base import plugins
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import sha256
from kdbench.base.progress import Progress
from kdbench.devices import backends
from kdbench.devices.deviceclass import DeviceClass
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


def processor() -> str:
    """The model of this machine's processor."""
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


@functools.cache
def _packages(_: plugins.Searched) -> tuple[dict[str, str], str]:
    """Versions of ``PACKAGES`` and of plugins, and a digest of the names and versions of all distributions."""
    installed: dict[str, str] = {}
    for found in metadata.distributions():  # as on import: the first of a name on the path is the one in use
        said = found.metadata  # read and parsed anew each time it is asked for
        if name := said["Name"]:
            installed.setdefault(re.sub(r"[-_.]+", "-", name).lower(), said["Version"])
    named = {name: installed[name] for name in (*PACKAGES, *sorted(plugins.distributions())) if name in installed}
    return named, sha256("\n".join(f"{name}=={version}" for name, version in sorted(installed.items())))


def environment(device: torch.device | None = None, processes: int = 1) -> dict[str, Any]:
    """What a record says of the machine. Imports torch.

    Args:
        device: where the run takes place; the graphics card is described only if it is one.
        processes: of the run, each on a card of its own.

    Returns:
        ``os, python, torch, cuda, cudnn, driver, gpu{name, count, mem_mib, power_limit_w, mig}, cpu, cores, threads,
        ram_gib, flags{tf32, conv_fp32, matmul_fp32, cudnn_benchmark, deterministic}, packages, packages_sha256``;
        ``driver`` and ``gpu`` are None on a CPU, ``power_limit_w`` and ``mig`` where NVML is missing.
    """
    import torch

    device = device or torch.device(backends.HOST)
    found, products = backends.of(device).facts(device), backends.of(device).products()
    packages, packages_sha256 = _packages(plugins.searched())
    return {
        "os": _os(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None,
        "driver": found["driver"],
        "gpu": found["gpu"] and {**found["gpu"], "count": processes},
        "cpu": processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "ram_gib": _ram_gib(),
        "flags": {
            "tf32": "tf32" in products.values(),
            **products,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
        "packages": dict(packages),
        "packages_sha256": packages_sha256,
    }


def device_name(device: torch.device) -> str:
    """A device class's first part: the backend, and the model where there is one, as ``cuda:NVIDIA-H100-80GB-HBM3``."""
    backend = backends.of(device)
    model = re.sub(r"[^A-Za-z0-9._]+", "-", backend.model(device)).strip("-._")
    return f"{backend.name}:{model}" if model else backend.name


def device_class(device: torch.device, options: EngineOptions = EAGER, world_size: int = 1) -> str:
    """What must be equal for rows to be compared, e.g. ``cuda:NVIDIA-H100-80GB-HBM3/bf16/x1/compile``.

    Args:
        device: of a known backend.
        options: engine options in force.
        world_size: processes of the run.

    Returns:
        The written form of a :class:`DeviceClass`: parts of ``[A-Za-z0-9._-]`` joined by ``/``.
    """
    return str(DeviceClass.of(device_name(device), options, world_size))


def pick_device(text: str, shared: Launch | None = None) -> torch.device:
    """The device a user names: ``auto`` (the first accelerator that is there, else the CPU), a backend's name, or that
    with a number, as in ``cuda:1``. Says why ``auto`` leaves out one that this machine has.

    Args:
        shared: this process's place among those of one run; each takes the device of its number.

    Raises:
        UserError: another word, no such device here, or a number there is none for.
    """
    form = re.fullmatch(r"([^:]+)(?::(\d+))?", text)
    name, number = (form[1], form[2]) if form is not None else (text, None)
    if name == "auto" and number is None:
        name = _first_there()
    known = backends.names()
    if name not in known or (number is not None and backends.named(name).on_host):
        near = nearest(name, known) if name not in known else ""
        raise UserError(f"--device {text!r} is not known{near}; use {backends.words()}, or a number as in cuda:1")
    backend = backends.named(name)
    if reason := backend.absent():
        raise UserError(f"--device {text}: {reason}; use --device cpu or --device auto")
    found = backend.devices()
    if backend.on_host:
        return found[0]
    if shared is not None:
        if number is not None or shared.local_size > len(found):
            raise UserError(
                f"--device {text}: {shared.local_size} processes take a {backend.title} device each, and there are "
                f"{len(found)}; use --device {name} and as many processes as devices, or --device cpu"
            )
        return found[shared.local_rank]
    if int(number or 0) >= len(found):
        raise UserError(
            f"--device {text}: there are {len(found)} {backend.title} devices, counted from {name}:0; use --device "
            f"{name}:0"
        )
    return found[int(number or 0)]


def _first_there() -> str:
    """The backend that ``auto`` stands for."""
    others = [backend for backend in backends.every() if not backend.on_host]
    for backend in others:
        if backend.absent() is None:
            return backend.name
    for backend in others:
        if backend.noticed():
            Progress.silent().say(f"--device auto takes the CPU, not {backend.title}: {backend.absent()}")
    return backends.HOST


def take_device(text: str, shared: Launch | None = None) -> torch.device:
    """The device a user names, made this process's current one: what is allocated for none in particular lies there.

    Raises:
        UserError: as :func:`pick_device`.
    """
    device = pick_device(text, shared)
    backends.of(device).make_current(device)
    return device


def contended(device: torch.device) -> bool | None:
    """Whether other processes are on a device now; None where nothing can tell."""
    backend = backends.of(device)
    board = backend.board(device)
    if board is None:
        return None
    backend.synchronize(device)  # this process must hold the device too, for it is subtracted from the list
    others = board.other_processes()
    return None if others is None else others > 0
