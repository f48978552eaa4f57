"""Channel-wise distillation (Shu et al., ICCV 2021): where in a channel the mass lies is where the teacher's lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch
from kdbench.methods.shared.pyramids import MAPPED, Pairs, PyramidMethod, aligned


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of each channel's softmax over its cells, 0-d, mean over pictures and channels.

    Args:
        student, teacher: (N, C, h, w) of one shape; the teacher's is a constant.
    """
    own, target = ((x.flatten(2) / temperature).log_softmax(2) for x in (student, teacher.detach()))
    return temperature**2 * (target.exp() * (target - own)).sum(2).mean()


def channel_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, channels: int) -> Tensor:
    """The same without the teacher's entropy, 0-d, over ``channels`` instead of the maps' own number of them."""
    own, target = ((x.flatten(2) / temperature).log_softmax(2) for x in (student, teacher.detach()))
    return -(temperature**2) * (target.exp() * own).sum() / (len(student) * channels)


class CWD(PyramidMethod):
    """The task's loss, and the divergence of all pyramid levels, summed, or of class scores, or of the last stage."""

    kinds = MAPPED

    def build(self, pairs: Pairs) -> None:
        self.levels = nn.ModuleList(aligned(s, t) for s, t in pairs)

    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        losses = [self._level(align, s, t) for align, (s, t) in zip(self.levels, pairs, strict=True)]
        return {"channels": self.hp.channel_weight * torch.stack(losses).sum()}

    def _level(self, align: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
        if self.hp.value == "cross_entropy":
            return channel_cross_entropy(align(student), teacher, self.hp.temperature, student.shape[1])
        return channel_divergence(align(student), teacher, self.hp.temperature)
