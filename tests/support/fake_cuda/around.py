"""torch, made to believe in the device within a block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim import optimizer

from fake_cuda.graphs import FakeGraphs
from fake_cuda.operators import FakeCuda, place
from fake_cuda.tags import CPU, CUDA, Side, put, put_storage, side, side_of
from kdbench.devices.backends import standing_in
from kdbench.devices.backends.cuda import Cuda
from kdbench.devices.lanes import Lane

CARD = SimpleNamespace(
    name="NVIDIA Fake 1", total_memory=80 * 2**30, multi_processor_count=132, major=9, minor=0,
    pci_domain_id=0, pci_bus_id=1, pci_device_id=0,
)  # fmt: skip
_device_of = torch._C.TensorBase.device.__get__  # type: ignore[attr-defined]
_autocast, _group = torch.autocast, optimizer._group_tensors_by_device_and_dtype
_is_autocast, _autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype


class FakeGenerator(torch._C.Generator):
    """Draws as the CPU's does, on whichever device it says."""

    device: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> FakeGenerator:
        made = super().__new__(cls, device="cpu")
        made._lies_on = CUDA if torch.device(device).type == "cuda" else CPU
        return made

    @property  # type: ignore[no-redef]
    def device(self) -> torch.device:
        return self._lies_on


class _Stream:
    """The one stream there is."""

    device = CUDA

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass


class _Event:
    """A moment of the host's time."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, later: _Event) -> float:
        return 1000 * (later.at - self.at)


class _Autocast(_autocast):  # type: ignore[misc,valid-type]
    """Autocast of the device that computes."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu", *args, **kwargs)


class _FakeCard(Cuda):
    """CUDA's backend, with the stand-in's graphs."""

    def __init__(self, fake: FakeCuda) -> None:
        self._fake = fake

    def no_compiler(self) -> str | None:
        return "there is nothing to compile for"

    def graphs(self, device: torch.device, rngs: Sequence[torch.Generator]) -> FakeGraphs:
        return FakeGraphs(self._fake)

    def lane(self, device: torch.device) -> Lane:
        return Lane(self, device)  # there is one stream


def _torch_cuda(fake: FakeCuda) -> dict[str, Any]:
    """What ``torch.cuda`` answers."""
    return {
        "_lazy_init": lambda: None,
        "_exchange_device": lambda number: 0,
        "_maybe_exchange_device": lambda number: 0,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: CARD.name,
        "get_device_properties": lambda device=None: CARD,
        "get_device_capability": lambda device=None: (CARD.major, CARD.minor),
        "synchronize": lambda device=None: fake.note("wait", "synchronize"),
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.random.default_generator.get_state(),
        "set_rng_state": lambda state, device=None: None,
        "reset_peak_memory_stats": lambda device=None: None,
        "max_memory_allocated": lambda device=None: 2**20,
        "max_memory_reserved": lambda device=None: 2**21,
        "current_stream": lambda device=None: _Stream(),
        "stream": lambda stream: nullcontext(),
        "is_current_stream_capturing": lambda: fake.listener is not None,
        "Stream": _Stream,
        "Event": _Event,
    }


def _tensor(fake: FakeCuda) -> dict[str, Any]:
    """What tensors say of themselves, and how Python moves them."""
    plain_to, plain_cpu, plain_numpy, plain_tolist = Tensor.to, Tensor.cpu, Tensor.numpy, Tensor.tolist

    def to_host(tensor: Tensor, how: str) -> Tensor:
        fake.note("to host", how)
        return put(tensor.clone(), Side.HOST)

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        where, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        kwargs |= zip(("non_blocking", "copy"), (arg for arg in args if isinstance(arg, bool)), strict=False)
        for arg in args:
            if isinstance(arg, Tensor):
                where, dtype = arg.device, arg.dtype
            elif isinstance(arg, torch.dtype):
                dtype = arg
            elif isinstance(arg, str | torch.device):
                where = torch.device(arg)
        if where is not None:
            where = CUDA if torch.device(where).type == "cuda" else CPU
        if where is CPU and side(self) is Side.DEVICE:
            self, where = to_host(self, "to"), None
        return plain_to(self, device=where, dtype=self.dtype if dtype is None else dtype, **kwargs)

    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if side(self) is Side.DEVICE:
            raise TypeError(f"a CUDA tensor has no NumPy array, at {place()}")
        return plain_numpy(self, *args, **kwargs)

    def tolist(self: Tensor) -> Any:
        if side(self) is Side.DEVICE:
            fake.note("to host", "tolist")
        return plain_tolist(self)

    def new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **kwargs: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, **kwargs)

    return {
        "device": property(lambda self: CUDA if side(self) is Side.DEVICE else _device_of(self)),
        "is_cuda": property(lambda self: side(self) is Side.DEVICE),
        "is_cpu": property(lambda self: side(self) is not Side.DEVICE),
        "get_device": lambda self: 0 if side(self) is Side.DEVICE else -1,
        "is_pinned": lambda self, *args: False,
        "pin_memory": lambda self, *args: self,
        "to": to,
        "cuda": lambda self, *args, **kwargs: self.to(CUDA),
        "cpu": lambda self, **kwargs: to_host(self, "cpu") if side(self) is Side.DEVICE else plain_cpu(self, **kwargs),
        "numpy": numpy,
        "tolist": tolist,
        "new_tensor": new_tensor,
    }


def _grouped(lists: Sequence[Any], with_indices: bool = False) -> Any:
    """An optimiser's tensors by the device on which they would lie."""
    first = next((tensor for some in lists for tensor in some if tensor is not None), None)
    there = first is not None and side(first) is Side.DEVICE
    found = _group(lists, with_indices)
    return {((CUDA, key[1]) if there and key[0] is not None else key): held for key, held in found.items()}


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Within the block, and in this process, there seems to be one CUDA device.

    What was put there stays there for the next block: a process keeps its data sets and what they hold on a device.
    """
    fake = FakeCuda()
    copied = torch.UntypedStorage.__deepcopy__

    def storage_copied(self: torch.UntypedStorage, memo: Any) -> torch.UntypedStorage:
        made = copied(self, memo)
        put_storage(made, side_of(self))
        return made

    with ExitStack() as stack:
        for target, changes in ((torch.cuda, _torch_cuda(fake)), (Tensor, _tensor(fake))):
            for name, change in changes.items():
                stack.enter_context(patch.object(target, name, change))
        stack.enter_context(patch.object(torch.UntypedStorage, "__deepcopy__", storage_copied))
        stack.enter_context(patch.object(torch, "Generator", FakeGenerator))
        stack.enter_context(patch.object(torch.accelerator, "is_available", lambda: False))
        stack.enter_context(patch.object(torch.backends.cudnn, "is_acceptable", lambda tensor: False))
        stack.enter_context(patch.object(torch, "autocast", _Autocast))
        stack.enter_context(patch.object(torch, "is_autocast_enabled", lambda device_type=None: _is_autocast("cpu")))
        stack.enter_context(patch.object(torch, "get_autocast_dtype", lambda device_type: _autocast_dtype("cpu")))
        stack.enter_context(patch.object(optimizer, "_group_tensors_by_device_and_dtype", _grouped))
        stack.enter_context(standing_in(_FakeCard(fake)))
        stack.enter_context(fake.called)
        stack.enter_context(fake)
        yield fake
