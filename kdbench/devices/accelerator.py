"""A backend by torch's own module of a device type (``torch.cuda``, ``torch.xpu``): what those modules agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdbench.devices.base import Backend

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdbench.devices.clock import Clock


class Accelerator(Backend):
    """Devices that work while the host goes on, with memory of their own."""

    pins = True

    @property
    def api(self) -> Any:
        """torch's module of the device type."""
        import torch

        return torch.get_device_module(self.type)

    def absent(self) -> str | None:
        return None if self.api.is_available() else f"torch sees no {self.title} device here"

    def devices(self) -> Sequence[torch.device]:
        import torch

        return [torch.device(self.type, number) for number in range(self.api.device_count())]

    def model(self, device: torch.device) -> str:
        return str(self.api.get_device_name(device))

    def make_current(self, device: torch.device) -> None:
        self.api.set_device(device)

    def synchronize(self, device: torch.device) -> None:
        self.api.synchronize(device)

    def clock(self, device: torch.device) -> Clock:
        from kdbench.devices.clock import EventClock

        return EventClock(device)

    def random_in_use(self) -> bool:
        return bool(self.api.is_initialized())

    def random_state(self, device: torch.device) -> Tensor:
        state: Tensor = self.api.get_rng_state(device)
        return state

    def set_random_state(self, device: torch.device, state: Tensor) -> None:
        self.api.set_rng_state(state.cpu(), device)

    def release_memory(self, device: torch.device) -> None:
        self.api.empty_cache()

    def reset_peak_memory(self, device: torch.device) -> None:
        self.api.reset_peak_memory_stats(device)

    def peak_memory(self, device: torch.device) -> tuple[int, int]:
        return self.api.max_memory_allocated(device), self.api.max_memory_reserved(device)
