"""A device class as a value: what must be equal for rows to be compared. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from kdbench.specs.options import EngineOptions


@dataclass(frozen=True)
class DeviceClass:
    """Written as ``cuda:NVIDIA-H100-80GB-HBM3/bf16/x4/compile``; records and the index hold that form.

    Attributes:
        device: a backend's name, and the model where that decides results: ``cpu``, ``cuda:<model>``.
        dtype: type of the arithmetic inside the networks.
        processes: of one run.
        options: names of the engine options in force, the precision apart.
    """

    device: str
    dtype: str = "fp32"
    processes: int = 1
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, device: str, options: EngineOptions, processes: int = 1) -> Self:
        """The class of a run of these options."""
        return cls(device, options.precision, processes, options.marks())

    @classmethod
    def parse(cls, text: str) -> Self:
        """The value of a written class.

        Raises:
            ValueError: it is none.
        """
        form = re.fullmatch(r"([^/]+)/([^/]+)/x(\d+)((?:/[^/]+)*)", text)
        if form is None:
            raise ValueError(f"{text!r} is no device class")
        return cls(form[1], form[2], int(form[3]), tuple(form[4].split("/")[1:]))

    def __str__(self) -> str:
        return "/".join([self.device, self.dtype, f"x{self.processes}", *self.options])

    @property
    def kind(self) -> str:
        """Name of the backend, see :mod:`kdbench.devices.backends`."""
        return self.device.partition(":")[0]

    @property
    def model(self) -> str:
        """The accelerator's model, "" of a CPU."""
        return self.device.partition(":")[2]

    def runs_like(self, options: EngineOptions, processes: int = 1) -> bool:
        """Whether a run of these options is of the class, on a device of its model."""
        return self == DeviceClass.of(self.device, options, processes)
