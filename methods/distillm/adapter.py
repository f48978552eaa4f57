"""Skewed divergences (Ko et al., DistiLLM, ICML 2024): the other network is mixed into what is compared with.

From the paper's equations; no public code was compared. Shapes: M real symbols, V symbols of the vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdbench.contract import At
from kdbench.methods.shared.logits import require_same_shape
from kdbench.methods.shared.onpolicy import OnPolicy, forward_kl


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


class DistiLLM(OnPolicy):
    """Skewed KL, in a share of on-policy steps that may grow with training."""

    def share(self, at: At) -> float:
        return float(self.hp.rate * at.t) if self.hp.growing else super().share(at)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return skewed(student, teacher, self.hp.alpha, self.hp.reverse)
