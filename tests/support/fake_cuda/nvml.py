"""NVML that is none, as ``nvidia-ml-py`` answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

WATTS = 400


class NVMLError(Exception):
    """Nothing is there to answer."""


def fake_nvml(processes: Sequence[int], exclusive: bool = False) -> ModuleType:
    """The module ``pynvml`` of a machine with one card, on which these processes are; ``exclusive``: its mode."""
    made: Any = ModuleType("pynvml")
    made.__spec__ = ModuleSpec("pynvml", None)
    begin = time.perf_counter()
    made.NVMLError = NVMLError
    made.NVML_CLOCK_SM, made.NVML_TEMPERATURE_GPU = 1, 0
    made.nvmlInit = lambda: None
    made.nvmlDeviceGetHandleByPciBusId = lambda address: address
    made.nvmlDeviceGetTotalEnergyConsumption = lambda card: int((time.perf_counter() - begin) * WATTS * 1000)
    made.nvmlDeviceGetEnforcedPowerLimit = lambda card: 700_000
    made.nvmlDeviceGetClockInfo = lambda card, clock: 1980
    made.nvmlDeviceGetTemperature = lambda card, sensor: 40
    made.nvmlDeviceGetUtilizationRates = lambda card: SimpleNamespace(gpu=0, memory=0)
    made.nvmlDeviceGetComputeRunningProcesses = lambda card: [SimpleNamespace(pid=pid) for pid in processes]
    made.nvmlDeviceGetGraphicsRunningProcesses = lambda card: []
    made.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3
    made.nvmlDeviceGetComputeMode = lambda card: 3 if exclusive else 0
    made.nvmlDeviceGetMigMode = lambda card: (0, 0)
    made.nvmlSystemGetDriverVersion = lambda: "595.45"
    return made
