"""Neuron selectivity transfer (Huang & Wang 2017): maximum mean discrepancy with a squared polynomial kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.shared.matching import match, unit
from kdbench.methods.shared.objective import StageWise


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows and channel pairs of the squared inner products of (N, C, P) and (N, D, P), 0-d."""
    return (a @ b.mT).square().mean()


def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """k(t, t) + k(s, s) - 2 k(s, t), 0-d: squared discrepancy between the channels of two networks.

    Args:
        student, teacher: (N, C, *size) of one stage; the larger is pooled to the smaller, then each channel is made a
            unit vector of its positions. Channels may differ; the teacher's map is a constant.
    """
    s, t = (unit(m.flatten(2)) for m in match(student, teacher.detach()))
    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


class NST(StageWise):
    """Channels of paired stages are selective for the same positions."""

    one_process = None

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        losses = [selectivity_loss(s, t) for s, t in self.pairs(out, target)]
        return {"selectivity": self.hp.selectivity_weight * torch.stack(losses).sum()}
