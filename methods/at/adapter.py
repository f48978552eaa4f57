"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017): activation-based spatial attention."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.shared.matching import match, unit
from kdbench.methods.shared.objective import StageWise


def attention(x: Tensor, power: float) -> Tensor:
    """(N, P) unit vectors of the channel mean of ``|x| ** power`` at each position of (N, C, *size)."""
    absolute = torch.where(x < 0, -x, x)  # rises at 0, where abs() has no gradient and a ReLU leaves many values
    return unit(absolute.pow(power).mean(dim=1).flatten(1))


def attention_loss(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """mean (A(F_s) - A(F_t))^2 of two attention maps, over rows and positions, 0-d.

    Args:
        student, teacher: (N, C, *size) of one stage; the larger is pooled to the smaller before anything else, the
            channels may differ, the teacher's is a constant.
    """
    student, teacher = match(student, teacher.detach())
    return (attention(student, power) - attention(teacher, power)).square().mean()


class AT(StageWise):
    """Attention maps of paired stages are alike."""

    one_process = None

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        losses = [attention_loss(s, t, self.hp.power) for s, t in self.pairs(out, target)]
        return {"attention": self.hp.attention_weight * torch.stack(losses).sum()}
