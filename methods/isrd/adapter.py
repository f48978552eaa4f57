"""Pixel Distillation (Guo et al., TPAMI 2024), one stage: the low-resolution student rebuilds the teacher's picture.

Shapes: N rows, K channels of the student's map, (C, H, W) of the picture that the teacher reads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import TEACHER_INPUT, At, Batch, Needs, NotApplicable
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod


class Rebuild(nn.Module):
    """A map as a picture: 1x1 convolution without bias to C r^2 channels, pixels shuffled, PReLU of a slope a channel.

    Args:
        channels: K.
        picture: (C, H, W).
        scale: r, how many pixels of the picture's sides one of the map stands for; the result is cut to (H, W).
    """

    def __init__(self, channels: int, picture: tuple[int, int, int], scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, picture[0] * scale**2, 1, bias=False)
        self.prelu = nn.PReLU(picture[0])
        self.scale, self.sides = scale, picture[1:]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of (N, K, h, w), where r h is at least H and r w at least W."""
        high, wide = self.sides
        rebuilt: Tensor = self.prelu(F.pixel_shuffle(self.conv(x), self.scale))
        return rebuilt[..., :high, :wide]


def rebuilt_apart(rebuilt: Tensor, picture: Tensor) -> Tensor:
    """mean |rebuilt - picture|, 0-d, over all rows, channels and pixels; the picture is normalised and a constant."""
    return F.l1_loss(rebuilt, picture.detach())


class ISRD(ScoreMethod):
    """Task loss, softened divergence, and what the picture rebuilt from an early map of the student is off.

    L = ce_weight L_task + kd_weight T^2 KL(teacher || student) + eta mean|x^ - x|, x the picture as the teacher reads
    it, x^ of :class:`Rebuild` with r = ceil(H / h), the larger one of both sides.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        student, batch = frozenset({"logits", "maps"}), frozenset({TEACHER_INPUT})
        return Needs(inputs="same", student=student, batch=batch, one_process=None)

    def setup(self) -> None:
        super().setup()
        task, stage = self.task, self.hp.stage
        maps = task.probe(self.student).maps
        if stage > len(maps):
            raise NotApplicable(f"stage {stage} is not there, the student has {len(maps)}")
        source = maps[stage - 1].shape[1:]
        picture = task.wrap(task.rows(torch.arange(1, device=task.device))).x[self.teacher.input].shape[1:]
        if len(source) != len(picture) or any(a > b for a, b in zip(source[1:], picture[1:], strict=True)):
            shapes = " and ".join("x".join(map(str, shape[1:])) for shape in (source, picture))
            raise NotApplicable(f"a map is rebuilt as a picture of its size or a larger one, here they are {shapes}")
        scale = max(-(-there // here) for here, there in zip(source[1:], picture[1:], strict=True))
        channels, high, wide = picture
        self.rebuild = Rebuild(source[0], (channels, high, wide), scale)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        picture = rebuilt_apart(self.rebuild(out.maps[hp.stage - 1]), batch.x[self.teacher.input])
        terms = {"task": hp.ce_weight * self.task.loss(out, batch), "picture": hp.eta * picture}
        if hp.kd_weight:
            terms["kd"] = hp.kd_weight * kd_loss(out.logits, self.teacher(batch).logits, hp.temperature)
        return terms
