"""Apple's graphics processors: refused, with the reason."""

from __future__ import annotations

from kdbench.devices.accelerator import Accelerator
from kdbench.devices.base import Speed


class Mps(Accelerator):
    """Metrics, and methods with statistics of their own, compute in 64 bits, which Metal does not have."""

    name = type = "mps"
    title = "MPS"
    refused = "kdbench's metrics and several methods need 64-bit floats, which Apple's MPS does not have"

    def absent(self) -> str | None:
        return self.refused

    def noticed(self) -> bool:
        import torch

        return torch.backends.mps.is_available()

    def random_in_use(self) -> bool:
        return False

    def speed(self) -> Speed:
        raise NotImplementedError


BACKEND = Mps()
