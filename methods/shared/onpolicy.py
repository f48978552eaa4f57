"""Distillation on texts that the student wrote itself (on-policy), in a share of the steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs, Network
from kdbench.contract.sentences import EOS, PREFIX, first, prefixes, spread
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.sentences import TEXTS


class OnPolicy(ScoreMethod):
    """(1 - kd_weight) CE of the data + kd_weight times a divergence, on texts that the student drew in a share of the
    steps and on those of the data in the others; no gradient passes through the drawing.

    A subclass says the divergence, and the share where it is not the hyper-parameter ``rate``.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS)

    def share(self, at: At) -> float:
        """Of the steps on texts that the student drew."""
        return float(self.hp.rate)

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(M,) of (M, V) logits of the student and, constant, of the teacher."""
        raise NotImplementedError(f"{type(self).__name__} has no divergence")  # abstract

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        terms = {}
        if hp.kd_weight < 1:
            terms["ce"] = (1 - hp.kd_weight) * self.task.loss(self.student(batch), batch)
        if drawn(self.share(at), at.rng):
            batch = self_written(self.student, batch, hp.longest, at.rng)
        apart = self.divergence(self.student(batch).logits, self.teacher(batch).logits)
        return {**terms, "kd": hp.kd_weight * apart.mean()}


@torch.no_grad()
def self_written(net: Network, batch: Batch, longest: int, rng: torch.Generator) -> Batch:
    """The inputs of a batch with targets drawn from a network, without its dropout; ``index`` numbers nothing.

    Args:
        longest: symbols of a sentence at most, its end apart.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    found = net.generate(batch, longest, rng=rng)
    for module, mode in modes:
        module.training = mode
    device = batch.y.device
    flat = torch.tensor([symbol for row in found for symbol in (*row, EOS)], device=device)
    counts = torch.tensor([len(row) + 1 for row in found], device=device)
    x = {**batch.x, PREFIX: prefixes(flat, *spread(first(counts), counts))}
    return replace(batch, x=x, y=flat, index=torch.arange(len(flat), device=device), counts=counts)


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(M,) KL(p || q) of (M, V) log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def drawn(rate: float, rng: torch.Generator) -> bool:
    """Whether this step is one of a share ``rate`` of all."""
    return bool(torch.rand((), generator=rng, device=rng.device) < rate)
