"""Relations of a detector's predictions (Wang, Jia, Wang, Zuo, TIP 2024), reconstructed: see the card for what is ours.

Shapes: N pictures, Q anchors of all levels, M of them chosen, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Dense, Method, Needs
from kdbench.methods.shared.boxes import box_distance, counted, quality_focal, same_cells
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.pyramids import DETECTORS

PARTS = ("task", "direct", "self", "mutual")
"""The losses that are weighed against one another."""
MOST = 2.0
"""Largest magnitude of the logarithm of a weight."""


def surest(scores: Tensor, most: int) -> Tensor:
    """(N, M) numbers of the anchors of each picture with the largest scores of (N, Q, K); all where there are fewer."""
    return scores.amax(-1).topk(min(most, scores.shape[1]), dim=1).indices


def described(scores: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
    """(..., K + 4) of predictions: class probabilities, and the box from its anchor's centre in the anchor's sides.

    Args:
        scores: (..., K) logits.
        boxes, anchors: (..., 4) x0, y0, x1, y1.
    """
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    sides = anchors[..., 2:] - anchors[..., :2]
    shape = (boxes - torch.cat([centre, centre], -1)) / torch.cat([sides, sides], -1)
    return torch.cat([scores.sigmoid(), shape], -1)


def relation_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Self and mutual relation, each 0-d: mean squared gaps to the teacher's cosines among its predictions.

    Self: of the cosines among the student's. Mutual: of those between the student's and the teacher's.

    Args:
        student, teacher: (N, M, D) descriptions of the same anchors; the teacher's are constants.
    """
    own, theirs = unit(student), unit(teacher.detach())
    wanted = theirs @ theirs.mT
    return (own @ own.mT - wanted).square().mean(), (own @ theirs.mT - wanted).square().mean()


class REAL(Method):
    """The detector's loss and direct, self and mutual ones, each times a trained weight."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        answers = frozenset({"cls", "box", "anchors"})
        return Needs(
            kinds=DETECTORS,
            inputs="same",
            student=answers | {"assigned"},
            teacher=answers,
            one_process="it divides by the positives of the whole batch",
        )

    def setup(self) -> None:
        same_cells(*(self.task.probe(net).dense for net in (self.student, self.teacher)))
        if self.hp.weighing == "trained":
            self.scales = nn.Parameter(torch.zeros(len(PARTS)))

    def _predicted(self, dense: Dense) -> tuple[Tensor, Tensor, Tensor]:
        """(N, Q, K) logits, (N, Q, 4) boxes and (Q, 4) anchors."""
        anchors, decode = torch.cat(dense.anchors), dense.decode
        assert decode is not None
        return torch.cat(dense.cls, 1), decode(torch.cat(dense.box, 1), anchors), anchors

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        (scores, boxes, anchors), (truth, wanted, _) = (self._predicted(one.dense) for one in (out, target))
        truth, wanted = truth.detach(), wanted.detach()
        counts, positives = counted(out.dense)
        certainty = truth.amax(-1).sigmoid()
        gaps = quality_focal(scores, truth, hp.beta) + certainty * box_distance("giou", boxes, wanted)
        chosen = surest(truth, hp.cells)
        picked = [x.take_along_dim(chosen[..., None], 1) for x in (scores, boxes, truth, wanted)]
        own, theirs = (described(picked[i], picked[i + 1], anchors[chosen]) for i in (0, 2))
        alone, mutual = relation_losses(own, theirs)
        direct = (gaps * counts).sum() / positives.clamp_min(1)
        parts = dict(zip(PARTS, (self.task.loss(out, batch), direct, alone, mutual), strict=True))
        return self._weighed(parts)

    def _weighed(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each loss over the exponential of its scale, and the sum of the scales, which keeps them from growing."""
        if self.hp.weighing == "equal":
            return parts
        weights = (-self.scales).exp()
        found = {part: weight * loss for weight, (part, loss) in zip(weights, parts.items(), strict=True)}
        return {**found, "scales": self.scales.sum()}

    def after_step(self, batch: Batch, at: At) -> None:
        if self.hp.weighing == "trained":
            self.scales.clamp_(-MOST, MOST)
