"""One look at a module while it runs: which submodules are called, in which order, what each reads and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 2


@dataclass(frozen=True)
class Call:
    """One call of a submodule.

    Attributes:
        read, gave: the first tensor of what it read and of what it returned, None where there is none.
        versions: how often each had been written to when it passed.
    """

    path: str
    module: nn.Module
    read: Tensor | None
    gave: Tensor | None
    versions: tuple[int, int]

    def changed(self, before: bool) -> bool:
        """Whether what was read (or given) has been written to since."""
        tensor = self.read if before else self.gave
        return tensor is not None and tensor._version != self.versions[0 if before else 1]


@dataclass(frozen=True)
class Trace:
    """A forward pass in eval mode, without gradients.

    Attributes:
        answer: what the module returned.
        calls: of its submodules, in the order in which they ended.
    """

    answer: Any
    calls: tuple[Call, ...]

    def last(self, path: str) -> Call | None:
        """The last call of a submodule."""
        return next((call for call in reversed(self.calls) if call.path == path), None)

    def within(self, path: str) -> Iterator[Call]:
        """The calls of a submodule and of those below it."""
        return (call for call in self.calls if call.path == path or call.path.startswith(f"{path}."))


def first_tensor(value: Any) -> Tensor | None:
    """A tensor, or the first one in a tuple, list or mapping."""
    if isinstance(value, Tensor):
        return value
    parts: Any = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def read_by(args: tuple[Any, ...], words: Mapping[str, Any]) -> Tensor | None:
    """The first tensor that a module was called with."""
    return first_tensor(args) if first_tensor(args) is not None else first_tensor(words)


@torch.no_grad()
def trace(body: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Two rows of noise through a module, which is left as it was; no generator moves.

    Raises:
        Exception: whatever the module raises.
    """
    calls: list[Call] = []
    paths = {module: path for path, module in body.named_modules() if path}
    pending: dict[nn.Module, list[tuple[Tensor | None, int]]] = {}

    def before(module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        read = read_by(args, words)
        pending.setdefault(module, []).append((read, -1 if read is None else read._version))

    def after(module: nn.Module, args: tuple[Any, ...], words: dict[str, Any], gave: Any) -> None:
        read, version = pending[module].pop()
        found = first_tensor(gave)
        calls.append(Call(paths[module], module, read, found, (version, -1 if found is None else found._version)))

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in paths]
    handles += [module.register_forward_hook(after, with_kwargs=True) for module in paths]
    modes = [(module, module.training) for module in body.modules()]
    kept = next((parameter for parameter in body.parameters()), torch.empty(0))
    noise = torch.randn(ROWS, *input_shape, generator=torch.Generator().manual_seed(0)).to(kept.device)
    body.eval()
    try:
        with torch.random.fork_rng([]):
            return Trace(body(noise), tuple(calls))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
