"""Masked generative distillation (Yang et al., ECCV 2022): from a student map with cells taken out, the teacher's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs
from kdbench.methods.cwd.adapter import channel_divergence
from kdbench.methods.shared.pyramids import MAPPED, Pairs, PyramidMethod, aligned


class Generation(nn.Module):
    """Makes the teacher's map of one level of the student's, masked.

    Args:
        student, teacher: maps of the level, for their channels.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        channels = teacher.shape[1]
        self.align = aligned(student, teacher)
        self.generation = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        made: Tensor = self.generation(self.align(x) * keep)
        return made


def kept(uniform: Tensor, masked: float) -> Tensor:
    """1 where a cell stays, 0 where it is masked, of uniform draws; each is masked with chance ``masked``."""
    return (uniform <= 1 - masked).to(uniform)


def generation_loss(made: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of a made map, 0-d: summed over channels and cells, mean over pictures.

    Args:
        made, teacher: (N, C, h, w); the teacher's is a constant.
    """
    return (made - teacher.detach()).square().sum() / len(made)


class MGD(PyramidMethod):
    """The task's loss, and the generation loss of the levels, summed; one mask a level, picture and step.

    With ``score_weight`` the class scores' channel divergence is added, as in the authors' segmentation.
    """

    kinds = MAPPED
    one_process = "each process would draw masks for its own pictures"

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        own = super().needs(hp)
        scores = frozenset({"logits"} if hp.score_weight else ())
        return replace(own, student=own.student | scores, teacher=own.teacher | scores)

    def build(self, pairs: Pairs) -> None:
        self.levels = nn.ModuleList(Generation(s, t) for s, t in pairs)

    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        losses = []
        for own, (s, t) in zip(self.levels, pairs, strict=True):
            keep = kept(self.uniform(s, at), self.hp.masked)
            losses.append(generation_loss(own(s, keep), t))
        return {"generation": self.hp.generation_weight * torch.stack(losses).sum()}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, out, target = self.hp, self.student(batch), self.teacher(batch)
        terms = {"task": self.task.loss(out, batch), **self.imitation(self.pairs(out, target), batch, at)}
        if hp.score_weight:
            gap = channel_divergence(out.logits, target.logits, hp.score_temperature)
            terms["scores"] = hp.score_weight * gap
        return terms

    @staticmethod
    def uniform(x: Tensor, at: At) -> Tensor:
        """(N, 1, h, w) draws for a map."""
        return torch.rand((len(x), 1, *x.shape[2:]), generator=at.rng, device=x.device)
