"""DMAE (Bai et al., CVPR 2023, section 3): masked autoencoding, and tokens of visible patches like the teacher's.

Shapes: N pictures, T tokens (the class token, then the visible patches), D_s and D_t numbers of a token.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Method, Needs, NotApplicable
from kdbench.methods.shared.blocks import at_depth
from kdbench.methods.shared.matching import unit

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}


def aligned(student: Tensor, teacher: Tensor, projection: nn.Module, distance: str) -> Tensor:
    """Mean distance of unit tokens, 0-d: |P s / |P s| - t / |t||, or its square.

    Args:
        student, teacher: (N, T, D_s) and (N, T, D_t); the latter are constants.
        projection: P, from D_s to D_t.
        distance: ``l1`` or ``l2``.
    """
    return DISTANCES[distance](unit(projection(student)), unit(teacher))


class Dmae(Method):
    """The task's own loss, and the tokens of one block; both networks see the same patches."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        tokens = frozenset({"tokens"})
        return Needs(kinds=frozenset({"representation"}), inputs="same", student=tokens, teacher=tokens)

    def setup(self) -> None:
        own, other = (self._tokens(self.task.probe(net).tokens) for net in (self.student, self.teacher))
        if own.shape[1] != other.shape[1]:
            raise NotApplicable(
                f"student and teacher need patches of one size, they have {own.shape[1] - 1} and {other.shape[1] - 1} "
                "of a picture"
            )
        self.projection = nn.Linear(own.shape[2], other.shape[2])

    def _tokens(self, blocks: tuple[Tensor, ...]) -> Tensor:
        return at_depth(blocks, self.hp.depth)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, taught = self.student(batch), self.teacher(batch)
        own = self._tokens(out.tokens)
        term = aligned(own, self._tokens(taught.tokens), self.projection, self.hp.distance)
        return {"task": self.task.loss(out, batch), "align": self.hp.weight * term}
