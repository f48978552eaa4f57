"""Nets with a projection head: any net of the zoo whose classifier becomes the first of two layers (Chen et al., ICML
2020, section 2.1). The head serves training alone; what is probed are the body's embeddings.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Network, NotApplicable, Out
from kdbench.models.around import Around

FEWEST = 2
"""Numbers of a projection."""


class ProjectionNet(Around):
    """A net whose ``logits`` are (N, D) projections, and whose ``emb`` are its body's.

    Args:
        body: a net of the zoo, whose scores are the head's hidden layer before its activation.
        hidden, width: of the head.
    """

    def __init__(self, body: Network, hidden: int, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(hidden, width))

    def encode(self, x: Tensor) -> Out:
        out = self.body.encode(x)
        return out._replace(logits=self.head(out.logits))


def build(input_shape: tuple[int, ...], outputs: int, net: str, width: int) -> ProjectionNet:
    """A :class:`ProjectionNet`, its hidden layer twice as wide as the projection.

    Args:
        outputs: not read, for a projection has no classes.
        net: the name of the body.
        width: D.

    Raises:
        UserError: a projection of fewer than 2 numbers, or a body without a classifier.
    """
    if width < FEWEST:
        raise UserError(f"a projection has at least {FEWEST} numbers; change the number behind 'project'")
    body = models.build(net, input_shape, 2 * width)
    try:
        hidden = body.classifier.out_features
    except NotApplicable as error:
        raise UserError(f"net {net!r} cannot have a projection head: it has no classifier to stand for it") from error
    return ProjectionNet(body, hidden, width)
