"""H-GKD, a reconstruction of Big2Small (arXiv 2309.09571): what a transformer says of hidden patches, for a sparse CNN.

Shapes: N pictures, D_t numbers of the teacher's tokens, h x w patches of the teacher's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs, NotApplicable, grown
from kdbench.methods.shared.sparse_students import SparseStudent

MAP = 4
"""Axes of maps of pictures."""
BETA = 2.0
"""Of smooth L1: below it errors count squared."""
ERRORS: dict[str, Any] = {
    "mse": F.mse_loss,
    "smooth_l1": lambda a, b, reduction: F.smooth_l1_loss(a, b, reduction=reduction, beta=BETA),
}


def mimicked(predicted: Tensor, tokens: Tensor, hidden: Tensor, error: str) -> Tensor:
    """Mean error at hidden places, 0-d, of tokens with mean 0 and variance 1.

    Args:
        predicted, tokens: (N, D_t, h, w); the latter are constants.
        hidden: (N, 1, h, w) bool.
        error: ``mse`` or ``smooth_l1``.
    """
    told = F.layer_norm(tokens.movedim(1, 3), tokens.shape[1:2]).movedim(3, 1)
    apart = ERRORS[error](predicted, told, reduction="none").mean(dim=1, keepdim=True)
    return (apart * hidden).sum() / hidden.sum()


class HGKD(SparseStudent):
    """The decoder predicts, where the student's picture is hidden, what the teacher says of the whole picture."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        maps = frozenset({"maps"})
        return Needs(kinds=frozenset({"representation"}), inputs="same", student=maps, teacher=maps)

    def setup(self) -> None:
        told = self.task.probe(self.teacher).maps[-1]
        side = self.pictures.shape[2]
        if told.ndim != MAP or side % told.shape[2]:
            raise NotApplicable(
                f"the teacher's tokens are to be patches of the student's picture, {side} pixels high; they are "
                f"{' x '.join(map(str, told.shape[2:]))}"
            )
        self.decodes(told.shape[1], finest=side // told.shape[2])

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        predicted = self.decoded(batch)
        tokens = self.teacher(whole(batch)).maps[-1]
        hidden = ~grown(self.visible(batch), *predicted.shape[2:])
        return {"mimic": mimicked(predicted, tokens, hidden, self.hp.error)}


def whole(batch: Batch) -> Batch:
    """The batch with nothing hidden."""
    return dataclasses.replace(batch, visible=None)
