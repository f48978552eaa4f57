"""What one of several runs that take turns in a process has for itself, so that it computes what it would alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kdbench.devices.base import Backend


class Lane:
    """The global generators: layers such as dropout draw from them, and go on where their own run left them.

    Args:
        backend: of the device; the state of its global generator is kept beside the CPU's.
        device: where the run takes place.
    """

    def __init__(self, backend: Backend, device: torch.device) -> None:
        self._backend, self._device = backend, device
        self._host, self._own = torch.get_rng_state(), backend.random_state(device)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block the run goes on; outside of it others may."""
        torch.set_rng_state(self._host)
        try:
            with self._on_device():
                yield
        finally:
            self._host = torch.get_rng_state()

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        if self._own is not None:
            self._backend.set_random_state(self._device, self._own)
        try:
            yield
        finally:
            self._own = self._backend.random_state(self._device)


class CudaLane(Lane):
    """A stream as well, on which its kernels run beside those of other lanes.

    A captured step reads the seed of the device's global generator from memory that belongs to the generator's state,
    and each replay writes it there first. So a lane has a state of its own: of one that all share, the replay of one
    lane might read what another has written.
    """

    def __init__(self, backend: Backend, device: torch.device) -> None:
        super().__init__(backend, device)
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._state = self._generator.clone_state()

    @property
    def _generator(self) -> torch.Generator:
        found: torch.Generator = torch.cuda.default_generators[self._device.index or 0]
        return found

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        outside = self._generator.graphsafe_get_state()
        self._generator.graphsafe_set_state(self._state)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._generator.graphsafe_set_state(outside)
