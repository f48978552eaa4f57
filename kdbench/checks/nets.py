"""What a net offers, and to which registered methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import method_config
from kdbench.contract import Batch, Out
from kdbench.engine.applicability import offers_of
from kdbench.engine.assemble import needs_of
from kdbench.engine.task import evaluating
from kdbench.specs import registry

ROWS = 2
MOST_AXES = 4


@dataclass(frozen=True)
class NetChecked:
    """What came of the check of a net.

    Attributes:
        params: number of its parameters.
        shapes: field of :class:`Out`, or ``maps[0]``, to the shape of one row.
        offers: words of :attr:`Needs.student` and :attr:`Needs.teacher`.
        student, teacher: method to what it reads of such a network that this one does not offer; empty where nothing.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    params: int
    shapes: Mapping[str, tuple[int, ...]]
    offers: frozenset[str]
    student: Mapping[str, frozenset[str]]
    teacher: Mapping[str, frozenset[str]]


def parse_shape(text: str) -> tuple[int, ...]:
    """``3,32,32`` as numbers.

    Raises:
        UserError: anything else.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and 0 < int(word) < 10**6 for word in words) or len(words) > MOST_AXES:
        raise UserError(f"--shape {text!r}: one to {MOST_AXES} numbers with commas, channels first; write 3,32,32")
    return tuple(int(word) for word in words)


def check_net(name: str, shape: tuple[int, ...], classes: int) -> NetChecked:
    """Builds a net, runs two rows of noise through it, and holds what it offers against what methods read.

    Raises:
        UserError: it cannot be built, or cannot read such inputs.
    """
    net = models.build(name, shape, classes)
    noise = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(0))
    with evaluating(net):
        out: Out = net(Batch({net.input: noise}, None, torch.arange(ROWS)))
    offers = frozenset(offers_of(net, out))
    needs = {method: needs_of(method_config(ref)) for method, ref in registry.methods().items()}
    return NetChecked(
        name, shape, classes, sum(p.numel() for p in net.parameters()), _shapes(out), offers,
        {method: own.student - offers for method, own in needs.items()},
        {method: own.teacher - offers for method, own in needs.items() if own.teachers},
    )  # fmt: skip


def _shapes(out: Out) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for field, value in out._asdict().items():
        if isinstance(value, tuple):
            found |= {f"{field}[{number}]": tuple(one.shape[1:]) for number, one in enumerate(value)}
        elif value is not None:
            found[field] = tuple(value.shape[1:])
    return found
