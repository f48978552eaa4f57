"""Modules in memory as networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import Network
from kdbench.models.hooked import Hooked
from kdbench.objects.net import Tapped
from kdbench.specs.nets import Taps

AnyNet = nn.Module | Tapped
"""A network: of kdbench, any module, or a module with taps."""


def tap(module: nn.Module, *, input: str | None = None, **taps: Any) -> Tapped:
    """A module with taps on what methods read of it: ``kdbench.tap(resnet, maps=["layer1", "layer2", "layer3"])``.

    Args:
        module: as it is; it keeps its parameters and is trained in place.
        input: name of the input it reads, where a batch has several.
        taps: ``maps``, ``preact``, ``norms``, ``stem``, ``emb``, ``classifier``, ``layout`` and ``extra``, as of
            ``@kdbench.net``; scores, embedding and classifier are found without.

    Raises:
        UserError: there is no such tap.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"kdbench.tap: a module is asked for, not a {type(module).__name__}")
    lists: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in taps.items()}
    try:
        return Tapped(module, Taps(**lists), input)
    except TypeError as error:
        raise UserError(f"{error}; taps are {', '.join(Taps.__dataclass_fields__)}") from error


def network(given: AnyNet, name: str, x: Mapping[str, Tensor], outputs: int) -> Network:
    """Any network as one that methods read.

    Args:
        name: what messages call it.
        x: inputs of a batch by name.
        outputs: classes, or 1 for a regression.

    Raises:
        UserError: it cannot read these inputs, answers for another number of classes, or has no such submodule.
    """
    if isinstance(given, Network):
        return given
    if not isinstance(given, nn.Module | Tapped):
        raise UserError(f"{name} is a {type(given).__name__}; give a module, or a kdbench.tap around one")
    tapped = given if isinstance(given, Tapped) else Tapped(given, Taps())
    reads = tapped.input or next(iter(x))
    if reads not in x:
        raise UserError(f"{name} reads the input {reads!r}, the batch has {', '.join(x)}")
    made = Hooked(name, tapped.module, tapped.taps, tuple(x[reads].shape[1:]), outputs)
    made.input = reads
    return made.to(x[reads].device)
