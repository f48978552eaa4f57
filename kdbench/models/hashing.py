"""Hashing nets: any net of the zoo whose last layer gives the scores of bits."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Network, NotApplicable, Out, bits
from kdbench.models.around import Around

FEWEST = 2
"""Bits."""
CLASSES = 1000
"""Of ImageNet, whose scores a fixed net gives to a head of two layers."""


class HashNet(Around):
    """A net whose ``code`` are (N, L) scores of bits, and whose ``emb`` are the bits, with gradients (``bits``).

    Args:
        body: a net of the zoo.
        head: from the body's scores to those of bits; an identity where the body's classifier is the head.
        fixed: the body keeps its weights and stays in eval mode, but for a classifier that is the head.
    """

    def __init__(self, body: Network, head: nn.Module, fixed: bool) -> None:
        super().__init__()
        self.body, self.head, self.fixed = body, head, fixed
        self._own = isinstance(head, nn.Identity)
        if fixed:
            body.requires_grad_(False)
            body.classifier.requires_grad_(self._own)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.fixed:
            self.body.eval()
        return self

    def encode(self, x: Tensor) -> Out:
        out = self.body.encode(x)
        code = self.head(out.logits)
        return Out(code, out.maps, out.preact, out.stem if out.has("stem") else None, bits(code), code)


def build(input_shape: tuple[int, ...], outputs: int, net: str, bits: int, form: str = "") -> HashNet:
    """A :class:`HashNet`.

    Args:
        outputs: not read, for bits are no classes.
        net: the name of the body.
        bits: L.
        form: ``linear`` trains a linear head alone, on a fixed body; ``mlp`` one of two layers on its ImageNet scores.

    Raises:
        UserError: fewer than 2 bits, or more than the head reads features.
    """
    body = models.build(net, input_shape, CLASSES if form == "mlp" else max(bits, FEWEST))
    try:
        width = CLASSES if form == "mlp" else body.classifier.in_features
    except NotApplicable as error:
        raise UserError(f"net {net!r} cannot be a hashing net: it has no classifier to stand for the bits") from error
    if not FEWEST <= bits <= width:
        raise UserError(
            f"a hashing net of {net!r} has {FEWEST} to {width} bits, as many as its embedding is wide; {bits} are "
            "asked for, change the number behind 'hash'"
        )
    head = nn.Sequential(nn.Linear(CLASSES, CLASSES), nn.ReLU(), nn.Linear(CLASSES, bits)) if form == "mlp" else None
    return HashNet(body, head or nn.Identity(), bool(form))
