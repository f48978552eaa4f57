"""Generalised knowledge distillation (Agarwal et al., ICLR 2024): a divergence of choice, on the student's own texts.

From the paper's equations; no public code was compared. Shapes: M real symbols, V symbols of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.shared.logits import ScoreMethod, require_same_shape
from kdbench.methods.shared.onpolicy import drawn, self_written
from kdbench.methods.shared.sentences import TEXTS


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(M,) KL(p || q) of (M, V) log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


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


class GKD(ScoreMethod):
    """(1 - kd_weight) CE of the data + kd_weight D(teacher, student), on texts that the student drew itself in a share
    ``rate`` of the steps, and on those of the data in the others (algorithm 1).

    No gradient passes through the drawing of a text.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        terms = {}
        if hp.kd_weight < 1:
            terms["ce"] = (1 - hp.kd_weight) * self.task.loss(self.student(batch), batch)
        if drawn(hp.rate, at.rng):
            batch = self_written(self.student, batch, hp.longest, at.rng)
        student, teacher = self.student(batch).logits, self.teacher(batch).logits
        apart = divergence(student, teacher, hp.divergence, hp.beta, hp.temperature)
        return {**terms, "kd": hp.kd_weight * apart.mean()}
