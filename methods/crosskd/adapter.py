"""Cross-head distillation (Wang et al. 2023): features of the student's head go through the teacher's head, and what
comes out imitates what the teacher says itself.

Shapes: N pictures, Q anchors of all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Dense, Method, Needs, NotApplicable
from kdbench.methods.pkd.adapter import pearson_loss, standardised
from kdbench.methods.shared.boxes import box_distance, centreness, counted, quality_focal
from kdbench.methods.shared.pyramids import ACROSS_ROWS, DETECTORS, same_channels

MACHINE = 2.0**-23
"""Added to the number a loss is divided by, as the framework of the authors' code does."""


def restyled(student: Tensor, teacher: Tensor) -> Tensor:
    """A student feature with the mean and the deviation that each channel of the teacher's has over cells of a batch.

    Args:
        student, teacher: (N, C, h, w) of one shape; the teacher's is a constant.
    """
    deviation, mean = torch.std_mean(teacher.detach(), dim=(0, 2, 3), keepdim=True)
    return standardised(student) * deviation + mean


def class_term(reused: Tensor, teacher: Tensor, counts: Tensor, beta: float) -> Tensor:
    """Summed quality-focal divergence of (N, Q, K) logits, 0-d; anchors whose (N, Q) ``counts`` is 0 are left out."""
    return (quality_focal(reused, teacher, beta) * counts).sum()


def box_term(form: str, reused: Tensor, teacher: Tensor, scores: Tensor, counts: Tensor) -> Tensor:
    """Summed distance of (N, Q, 4) boxes, 0-d; each counts by the teacher's largest score of its (N, Q, K) logits."""
    certainty = scores.detach().amax(-1).sigmoid() * counts
    return (box_distance(form, reused, teacher.detach()) * certainty).sum()


class CrossKD(Method):
    """The detector's loss, class and box terms of the crossed head, and the Pearson loss of the pyramid if weighed."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        taps = f"taps:{hp.reuse_after}"
        pyramid = {"fpn"} if hp.pearson_weight else set()
        inside = {"boxes"} if hp.normaliser == "centreness" else set()
        return Needs(
            kinds=DETECTORS,
            inputs="same",
            student=frozenset({taps, "assigned", "anchors"} | pyramid),
            teacher=frozenset({taps, "cls", "box", "head"} | pyramid),
            batch=frozenset(inside),
            one_process=ACROSS_ROWS,
        )

    def setup(self) -> None:
        own, theirs = (self.task.probe(net).dense for net in (self.student, self.teacher))
        for s, t in zip(self._taps(own), self._taps(theirs), strict=False):
            for feature, target in zip(s, t, strict=True):
                if feature.shape[1:] != target.shape[1:]:
                    raise NotApplicable(
                        f"the student's head has features of {tuple(feature.shape[1:])}, the teacher's of "
                        f"{tuple(target.shape[1:])}; heads and pyramids must be of one width and their pictures of one "
                        "size"
                    )
        if len(own.fpn) != len(theirs.fpn):
            raise NotApplicable(f"the student has {len(own.fpn)} levels, the teacher {len(theirs.fpn)}")
        if self.hp.pearson_weight:
            same_channels(list(zip(own.fpn, theirs.fpn, strict=True)))
        self.crossed = (self.teacher.head_from(self.hp.reuse_after),)  # in a tuple: no module of the method

    def _taps(self, dense: Dense) -> Sequence[tuple[Tensor, Tensor]]:
        """Class and box feature of each level at the block where the student's are taken."""
        return dense.taps[self.hp.reuse_after]

    def reused(self, own: Dense, theirs: Dense) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Class logits and raw regression of each level, from the student's features through the teacher's head."""
        features: tuple[list[Tensor], list[Tensor]] = ([], [])
        for level, targets in zip(self._taps(own), self._taps(theirs), strict=True):
            for branch, feature, target in zip(features, level, targets, strict=True):
                branch.append(restyled(feature, target))
        logits, boxes = self.crossed[0](*features)
        return logits, boxes

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        own, theirs = out.dense, target.dense
        logits, boxes = (torch.cat(parts, 1) for parts in self.reused(own, theirs))
        scores, regressed = torch.cat(theirs.cls, 1), torch.cat(theirs.box, 1)
        counts, positives = counted(own)
        number = centreness(own, batch.y) if hp.normaliser == "centreness" else positives
        shared = 1 / (number.clamp_min(1) + MACHINE)
        decode, anchors = theirs.decode, torch.cat(own.anchors)
        assert decode is not None
        distance = box_term(hp.box_loss, decode(boxes, anchors), decode(regressed, anchors), scores, counts)
        terms = {
            "task": self.task.loss(out, batch),
            "class": hp.class_weight * shared * class_term(logits, scores, counts, hp.beta),
            "box": hp.box_weight * shared * distance,
        }
        if hp.pearson_weight:
            levels = [pearson_loss(s, t) for s, t in zip(own.fpn, theirs.fpn, strict=True)]
            terms["pearson"] = hp.pearson_weight * torch.stack(levels).sum()
        return terms
