"""Variational information distillation (Ahn et al., CVPR 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import Out
from kdbench.methods.shared.connectors import CONV
from kdbench.methods.shared.matching import match
from kdbench.methods.shared.objective import StageWise

FLOOR = 1e-5
"""Smallest variance."""


def raw_scale(variance: float) -> float:
    """What softplus takes to ``variance`` above ``FLOOR``."""
    excess = variance - FLOOR
    return excess + math.log(-math.expm1(-excess))


class Gaussian(nn.Module):
    """A Gaussian of the teacher's map given the student's: a mean of three size-1 convolutions, a variance a channel.

    Args:
        student, teacher: channels.
        variance: of every channel at the start, above ``FLOOR``.
        axes: axes of positions of the maps.
    """

    def __init__(self, student: int, teacher: int, variance: float, axes: int = 2) -> None:
        super().__init__()
        conv = CONV[axes]
        self.conv0 = conv(student, teacher, 1, bias=False)
        self.conv1 = conv(teacher, teacher, 1, bias=False)
        self.conv2 = conv(teacher, teacher, 1, bias=False)
        self.log_scale = nn.Parameter(torch.full((teacher,), raw_scale(variance)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, teacher, *size) and variance (teacher, 1 ...) for a student map (N, student, *size)."""
        mean = self.conv2(self.conv1(self.conv0(x).relu()).relu())
        variance = F.softplus(self.log_scale) + FLOOR
        return mean, variance.reshape(-1, *[1] * (x.ndim - 2))


def information_loss(gaussian: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """mean 1/2 ((mu(F_s) - F_t)^2 / v + log v) over all elements, 0-d; may be negative.

    It is the negative log-likelihood of the teacher's map, constants left out.

    Args:
        gaussian: from a student map to the mean and variance of the teacher's.
        student, teacher: (N, C, *size) of one stage; the larger is pooled to the smaller, the teacher's is a constant.
    """
    student, teacher = match(student, teacher.detach())
    mean, variance = gaussian(student)
    return 0.5 * ((mean - teacher).square() / variance + variance.log()).mean()


class VID(StageWise):
    """The student's maps of paired stages predict the teacher's."""

    one_process = None

    def build(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        start = self.hp.initial_variance
        self.gaussians = nn.ModuleList(Gaussian(s.shape[1], t.shape[1], start, s.ndim - 2) for s, t in pairs)

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        stages = zip(self.gaussians, self.pairs(out, target), strict=True)
        losses = [information_loss(gaussian, s, t) for gaussian, (s, t) in stages]
        return {"information": self.hp.information_weight * torch.stack(losses).sum()}
