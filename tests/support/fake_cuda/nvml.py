"""NVML that is none, as ``nvidia-ml-py`` answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

WATTS = 400


class NVMLError(Exception):
    """Nothing is there to answer."""


def fake_nvml(processes: Sequence[int]) -> ModuleType:
    """The module ``pynvml`` of a machine with one card, on which these processes are."""
    made: Any = ModuleType("pynvml")
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
    made.nvmlDeviceGetMigMode = lambda card: (0, 0)
    made.nvmlSystemGetDriverVersion = lambda: "595.45"
    return made
