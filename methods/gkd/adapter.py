"""Generalised knowledge distillation (Agarwal et al., ICLR 2024): a divergence of choice, on the student's own texts.

From the paper's equations; no public code was compared. Shapes: M real symbols, V symbols of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.methods.shared.logits import require_same_shape
from kdbench.methods.shared.onpolicy import OnPolicy, forward_kl


def generalised_js(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """(M,) beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (equation 1).

    Args:
        log_p: (M, V) of the teacher.
        log_q: (M, V) of the student.
    """
    mixed = torch.logaddexp(log_p + torch.tensor(beta).log().to(log_p), log_q + torch.tensor(1 - beta).log().to(log_q))
    return beta * forward_kl(log_p, mixed) + (1 - beta) * forward_kl(log_q, mixed)


def divergence(student: Tensor, teacher: Tensor, kind: str, beta: float, temperature: float) -> Tensor:
    """(M,) divergence of the teacher's and the student's next symbol.

    Args:
        student, teacher: (M, V) logits; the teacher's are constants.
        kind: ``forward`` KL(p_T || p_S), ``reverse`` KL(p_S || p_T), or ``js`` of weight ``beta``.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    require_same_shape(student, teacher)
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (teacher.detach(), student))
    if kind == "js":
        return generalised_js(log_p, log_q, beta)
    return forward_kl(log_p, log_q) if kind == "forward" else forward_kl(log_q, log_p)


class GKD(OnPolicy):
    """A divergence of choice in a share ``rate`` of on-policy steps (algorithm 1)."""

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        hp = self.hp
        return divergence(student, teacher, hp.divergence, hp.beta, hp.temperature)
