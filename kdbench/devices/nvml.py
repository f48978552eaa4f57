"""What NVIDIA's management library knows of one board. Optional: needs the ``gpu`` extra (nvidia-ml-py) and a driver.

Every query answers None where the board or the driver does not offer it; nothing here raises.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Nvml:
    """One board; a :class:`kdbench.devices.base.Board`.

    Args:
        api: the ``pynvml`` module, initialised.
        handle: its handle of the board.
    """

    source = "nvml"

    def __init__(self, api: ModuleType, handle: Any) -> None:
        self._api = api
        self._handle = handle

    @classmethod
    def open(cls, device: torch.device) -> Nvml | None:
        """The board behind a CUDA device, or None where NVML is missing.

        The board is found by its PCI address: NVML counts boards its own way, ``CUDA_VISIBLE_DEVICES`` another.
        """
        try:
            import pynvml  # optional dependency
        except ImportError:
            return None
        import torch  # late: importing this module must stay cheap

        seen: Any = torch.cuda.get_device_properties(device)
        address = f"{seen.pci_domain_id:08x}:{seen.pci_bus_id:02x}:{seen.pci_device_id:02x}.0"
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(address))
        except pynvml.NVMLError:
            return None

    def _ask(self, function: str, *args: Any) -> Any:
        try:
            return getattr(self._api, function)(*args)
        except self._api.NVMLError:
            return None

    def energy_mj(self) -> int | None:
        """Energy of the whole board since the driver was loaded, mJ (Volta and later)."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle)

    def power_limit_w(self) -> float | None:
        """Power limit in force, W."""
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit", self._handle)
        return None if limit is None else limit / 1000

    def sm_clock_mhz(self) -> int | None:
        """Clock of the streaming multiprocessors now, MHz."""
        return self._ask("nvmlDeviceGetClockInfo", self._handle, self._api.NVML_CLOCK_SM)

    def temperature_c(self) -> int | None:
        """Temperature of the chip now, °C."""
        return self._ask("nvmlDeviceGetTemperature", self._handle, self._api.NVML_TEMPERATURE_GPU)

    def utilisation(self) -> int | None:
        """Share of the last sampling period (up to 1 s) in which a kernel ran, %."""
        rates = self._ask("nvmlDeviceGetUtilizationRates", self._handle)
        return None if rates is None else rates.gpu

    def mig(self) -> bool:
        """Whether the board is split into instances. A board that cannot be split is not."""
        modes = self._ask("nvmlDeviceGetMigMode", self._handle)
        return modes is not None and modes[0] == 1

    def exclusive(self) -> bool:
        """Whether the driver lets one process at a time use the board."""
        mode = self._ask("nvmlDeviceGetComputeMode", self._handle)
        return mode is not None and mode == self._api.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS

    def other_processes(self, own: int = 1) -> int | None:
        """Processes on the board beside ``own`` ones, this one among them, which must have used CUDA already.

        They are subtracted by count, not by number: in a container NVML names processes by the host's numbers. Where it
        lists fewer than must be there it cannot tell.
        """
        compute = self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle)
        graphics = self._ask("nvmlDeviceGetGraphicsRunningProcesses", self._handle)
        if compute is None:
            return None
        listed = len({p.pid for p in [*compute, *(graphics or [])]})
        return listed - own if listed >= own else None

    def driver(self) -> str | None:
        """Driver version."""
        version = self._ask("nvmlSystemGetDriverVersion")
        return version.decode() if isinstance(version, bytes) else version
