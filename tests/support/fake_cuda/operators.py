"""CUDA's rules for operators, applied as they are dispatched."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fake_cuda.tags import CPU, Side, put, side

ROOT = Path(__file__).parents[3]
OWN = tuple(f"{ROOT / room}/" for room in ("kdbench", "methods"))
OPTIMISERS = f"{Path(torch.optim.__file__).parent}/"

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "bincount", "histc", "equal", "_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq", "_linalg_solve_ex",
}  # fmt: skip
"""Operators whose result, or its shape, the host must have before it goes on."""
INDEXED = {"index", "_unsafe_index", "index_put", "_index_put_impl"}
NO_SCALARS = {
    "cat", "stack", "mm", "addmm", "bmm", "convolution", "gather", "scatter", "scatter_add", "index_select",
    "embedding", "native_batch_norm",
}  # fmt: skip
"""Operators for which a CPU tensor without axes is as foreign as any other."""
LENGTHS_ON_HOST = {"_pack_padded_sequence", "_pack_padded_sequence_backward"}
"""Operators whose lengths lie on the host, wherever the rows are."""
NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh", "lift",
    "_reshape_alias", "_unsafe_view", "view", "set", "resize", "_local_scalar_dense",
}  # fmt: skip
"""Operators that launch nothing, beside views."""
FACTORIES = {
    "ones", "zeros", "full", "empty", "arange", "rand", "randn", "randint", "randperm", "eye", "linspace", "logspace",
    "tensor", "as_tensor", "normal", "empty_strided", "scalar_tensor", "tril_indices", "triu_indices",
}  # fmt: skip
"""Functions that make a tensor where Python asked for it."""


OF_DATA = (torch.tensor, torch.as_tensor)
"""Functions that read data on the host and move what they made."""


class Mismatch(RuntimeError):
    """CUDA would refuse an operator: its tensors, or its generator, are not of one device."""


@dataclass
class Seen:
    """What happened in a stretch of work.

    Attributes:
        events: (what, operator, place) to how often; ``what`` is ``to device``, ``to host`` or ``wait``, and the place
            ``folder/file.py:function``.
        launches: operators with a kernel, by name.
    """

    events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)

    @property
    def where(self) -> set[tuple[str, str]]:
        """Place and operator of what happened."""
        return {(place, operator) for _, operator, place in self.events}


def place() -> str | None:
    """The nearest function of kdbench or a method; None from within an optimiser of torch.

    Adam counts its steps in a tensor that lies on the host, wherever the parameters are: reading it is no wait.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(OPTIMISERS):
            return None
        if code.co_filename.startswith(OWN):
            return f"{Path(code.co_filename).relative_to(ROOT)}:{code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


class Called(TorchFunctionMode):
    """Knows which function Python called, and its generator, of which operators see a copy without its class.

    Attributes:
        classes: the call says of how many classes it is.
    """

    generator: torch._C.Generator | None

    def __init__(self) -> None:
        super().__init__()
        self.name, self.generator, self.classes = "", None, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = self.name, self.generator, self.classes
        self.name, self.generator = getattr(func, "__name__", ""), kwargs.get("generator")
        self.classes = len(args) > 1 or "num_classes" in kwargs
        try:
            if func in OF_DATA and (device := kwargs.get("device")) is not None:
                return func(*args, **(kwargs | {"device": CPU})).to(device)
            return func(*args, **kwargs)
        finally:
            self.name, self.generator, self.classes = before


Listener = Callable[[str, Sequence[Tensor], Any], None]
"""Is told an operator's name, its tensors on the device, and its result; of all but views."""


class FakeCuda(TorchDispatchMode):
    """Judges operators.

    Attributes:
        called: knows what Python called.
        listener: is told what is done on the device, None without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.called = Called()
        self.listener: Listener | None = None
        self._seen: list[Seen] = []

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        """Collects what happens in the block, and not in a block within it."""
        self._seen.append(Seen())
        try:
            yield self._seen[-1]
        finally:
            self._seen.pop()

    def note(self, what: str, operator: str) -> None:
        """Something that the host waits for."""
        if self._seen and (where := place()) is not None:
            self._seen[-1].events[what, operator, where] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.partition("::")[2]
        name = name.rstrip("_") or name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        wanted = None if (device := kwargs.get("device")) is None else torch.device(device)
        if wanted is not None:
            kwargs["device"] = CPU
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        where = self._where(name, args, kwargs, tensors, wanted)
        own = [tensor for tensor in tensors if side(tensor) is Side.DEVICE]
        if own:
            self._waits(name, args, kwargs)
        if name == "_to_copy" and where is Side.DEVICE and own and self._nothing_to_do(args[0], kwargs):
            return put(torch.ops.aten.alias(args[0]), where)
        held = {tensor.untyped_storage()._cdata for tensor in tensors}
        out = func(*args, **kwargs)
        if name == "set":  # a storage that is known, or that is tagged by whom it was made
            return out
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in held:
                put(tensor, where)
        if name == "_pack_padded_sequence":
            put(out[1], Side.HOST)
        if (own or where is Side.DEVICE) and not func.is_view:
            if self._seen and name not in NO_KERNEL:
                self._seen[-1].launches[name] += 1
            if self.listener is not None:
                self.listener(name, own, out)
        return out

    def _where(
        self, name: str, args: Any, kwargs: dict[str, Any], tensors: Sequence[Tensor], wanted: torch.device | None
    ) -> Side:
        """Where the result lies; notes copies and refuses what CUDA does."""
        asked = None if wanted is None else Side.DEVICE if wanted.type == "cuda" else Side.HOST
        if name == "_to_copy":
            if asked is Side.DEVICE and side(args[0]) is Side.HOST and not kwargs.get("non_blocking"):
                self.note("to device", name)
            # C++ may say "cpu" of what is said to lie on CUDA; what Python asks for comes another way (around.py)
            return Side.DEVICE if asked is Side.DEVICE else side(args[0])
        if name == "copy":
            to, of = side(args[0]), side(args[1])
            if {to, of} == {Side.HOST, Side.DEVICE} and not (len(args) > 2 and args[2]):
                self.note("to device" if to is Side.DEVICE else "to host", name)
            return to
        if not tensors:
            where = asked or Side.HOST
            if where is Side.HOST and wanted is not None and self.called.name not in FACTORIES:
                where = Side.EITHER
            self._generator(name, where)
            return where
        sides = {side(tensor) for tensor in tensors}
        if Side.DEVICE in sides:
            self._foreign(name, args, [tensor for tensor in tensors if side(tensor) is Side.HOST])
        where = next(one for one in (Side.DEVICE, Side.EITHER, Side.HOST) if one in sides or asked is one)
        self._generator(name, where)
        return where

    def _generator(self, name: str, where: Side) -> None:
        """Draws follow a generator of their own device."""
        if (generator := self.called.generator) is None or where is Side.EITHER:
            return
        device = "cuda" if where is Side.DEVICE else "cpu"
        if generator.device.type != device:
            raise Mismatch(f"{name}: generator on {generator.device} for a tensor on {device}, at {place()}")

    def _foreign(self, name: str, args: Any, foreign: Sequence[Tensor]) -> None:
        """Tensors of the CPU in an operator on the device: refused, but for numbers and indices."""
        if name in INDEXED or self.called.name in ("__getitem__", "__setitem__"):
            if side(args[0]) is Side.HOST and args[0].ndim:
                raise Mismatch(f"{name}: CPU tensor indexed by a CUDA tensor, at {place()}")
            if foreign:
                self.note("to device", name)
            return
        if name in LENGTHS_ON_HOST:
            return
        if foreign and (name in NO_SCALARS or any(tensor.ndim for tensor in foreign)):
            shapes = [tuple(tensor.shape) for tensor in foreign]
            raise Mismatch(f"{name}: CPU tensors of shapes {shapes} beside CUDA tensors, at {place()}")
        if foreign and name == "where":
            self.note("to device", name)

    def _waits(self, name: str, args: Any, kwargs: dict[str, Any]) -> None:
        """Notes what makes the host wait, whose operands lie on the device."""
        checked = self.called.name == "one_hot" and self.called.classes  # its values, on a CPU alone
        if (name in WAITS and not checked) or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.note("wait", name)
        if name in INDEXED and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.note("wait", f"{name} by a mask")

    @staticmethod
    def _nothing_to_do(tensor: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether a tensor that is moved to where it lies stays as it is."""
        return kwargs.get("dtype") in (None, tensor.dtype) and kwargs.get("memory_format") is None
