"""Skewed divergences (Ko et al., DistiLLM, ICML 2024): the other network is mixed into what is compared with.

From the paper's equations; no public code was compared. Shapes: M real symbols, V symbols of the vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.gkd.adapter import forward_kl
from kdbench.methods.shared.logits import ScoreMethod, require_same_shape
from kdbench.methods.shared.onpolicy import drawn, self_written
from kdbench.methods.shared.sentences import TEXTS


def skewed(student: Tensor, teacher: Tensor, alpha: float, reverse: bool) -> Tensor:
    """(M,) KL(p || alpha p + (1 - alpha) q), or reversed KL(q || (1 - alpha) p + alpha q) (equations 4 and 6).

    Args:
        student, teacher: (M, V) logits of q and p; the teacher's are constants.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    require_same_shape(student, teacher)
    log_p, log_q = teacher.detach().log_softmax(1), student.log_softmax(1)
    own, other = (log_q, log_p) if reverse else (log_p, log_q)
    return forward_kl(own, torch.logaddexp(own + math.log(alpha), other + math.log1p(-alpha)))


class DistiLLM(ScoreMethod):
    """(1 - kd_weight) CE of the data + kd_weight skewed KL, on the student's own texts in a share of the steps."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        terms = {}
        if hp.kd_weight < 1:
            terms["ce"] = (1 - hp.kd_weight) * self.task.loss(self.student(batch), batch)
        if drawn(hp.rate * at.t if hp.growing else hp.rate, at.rng):
            batch = self_written(self.student, batch, hp.longest, at.rng)
        student, teacher = self.student(batch).logits, self.teacher(batch).logits
        return {**terms, "kd": hp.kd_weight * skewed(student, teacher, hp.alpha, hp.reverse).mean()}
