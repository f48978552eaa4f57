"""Knowledge review (Chen, Liu, Zhao, Jia, CVPR 2021): attention-based fusion and hierarchical context loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import At, Batch, Method, Needs, NotApplicable, Out
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.matching import pair_stages
from kdbench.methods.shared.pyramids import level_pairs
from kdbench.methods.shared.ramps import ramp

PYRAMID = "fpn"
"""Of the features: those of a detector's pyramid."""
NORM_ROWS = 2
"""Fewest values a batch norm of pooled features can normalise."""


class ABF(nn.Module):
    """Attention-based fusion of one student stage with the fused map of the deeper stages.

    Args:
        student: channels of the student stage.
        mid: channels of the fused maps.
        teacher: channels of the teacher stage.
        fuse: False for the deepest stage, which has nothing to fuse with.
    """

    def __init__(self, student: int, mid: int, teacher: int, fuse: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(student, mid, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, teacher, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(teacher)
        self.att = nn.Conv2d(2 * mid, 2, 1) if fuse else None
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, x: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Output (N, teacher, *size) and fused map (N, mid, *size) of a stage (N, student, h, w)."""
        fused = self.bn1(self.conv1(x))
        if self.att is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[-2:], mode="nearest")
            gates = torch.sigmoid(self.att(torch.cat([fused, deeper], dim=1)))
            fused = fused * gates[:, :1] + deeper * gates[:, 1:]
        if fused.shape[-2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.bn2(self.conv2(fused)), fused


class _EqualWindows(torch.autograd.Function):
    """Adaptive pooling whose windows are of one size, so that each position's gradient is that of one mean.

    torch's own gradient adds to positions in any order on a GPU, though nothing is added up here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, level: int) -> Tensor:
        ctx.size = x.shape
        return F.adaptive_avg_pool2d(x, level)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        n, c, height, width = ctx.size
        level = grads[0].shape[-1]
        high, wide = height // level, width // level
        each = (grads[0] / high / wide)[:, :, :, None, :, None]
        return each.expand(n, c, level, high, level, wide).reshape(ctx.size), None


def level_means(x: Tensor, level: int) -> Tensor:
    """Means of (N, C, H, W) in ``level`` by ``level`` windows."""
    if x.shape[2] % level or x.shape[3] % level:
        return F.adaptive_avg_pool2d(x, level)
    made: Tensor = _EqualWindows.apply(x, level)
    return made


def hcl(student: Tensor, teacher: Tensor, levels: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Hierarchical context loss of one stage, 0-d: squared error of the maps and of their pooled versions.

    Args:
        student, teacher: (N, C, H, W) of one shape.
        levels: side lengths of the pooled maps; those not below H are skipped, each next one weighs half.

    Raises:
        ValueError: the shapes differ; a map of one position would be broadcast otherwise.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"maps of shapes {tuple(student.shape)} and {tuple(teacher.shape)} cannot be compared")
    total, weights, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for level in levels:
        if level < student.shape[2]:
            weight /= 2
            own, target = (level_means(m, level) for m in (student, teacher))
            total = total + weight * F.mse_loss(own, target)
            weights += weight
    return total / weights


def review(abfs: Sequence[nn.Module], student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of the fusion modules, shallow to deep, each of its teacher stage's shape; runs deep to shallow."""
    outputs: list[Tensor] = []
    deeper = None
    for abf, s, t in zip(reversed(list(abfs)), reversed(list(student)), reversed(list(teacher)), strict=True):
        output, deeper = abf(s, deeper, t.shape[-2:])
        outputs.insert(0, output)
    return outputs


def _read(features: str) -> frozenset[str]:
    """What is read of a network for its stages; a pyramid stands alone."""
    return frozenset({PYRAMID} if features == PYRAMID else {features, "emb"})


def _as_map(x: Tensor) -> Tensor:
    """(N, C), (N, C, L) and (N, C, H, W) as (N, C, H, W)."""
    while x.ndim < 4:
        x = x.unsqueeze(-1)
    return x


class ReviewKD(Method):
    """The task's loss, the ramped review loss, and an optional softened divergence."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        scores = {"logits"} if hp.kl_weight else set()
        return Needs(
            kinds=None,
            student=_read(hp.student_features) | scores,
            teacher=_read(hp.teacher_features) | scores,
            min_batch=NORM_ROWS,
            teacher_batchnorm=hp.teacher_batchnorm,
            one_process=None,
        )

    def setup(self) -> None:
        task, hp = self.task, self.hp
        if hp.kl_weight and task.kind == "regression":
            raise NotApplicable("its KL term needs class scores; set method.kl_weight=0")
        if (hp.student_features == PYRAMID) != (hp.teacher_features == PYRAMID):
            raise UserError("student_features and teacher_features are both fpn or neither; set both")
        if hp.student_features == PYRAMID and (hp.student_stages or hp.teacher_stages):
            raise UserError("levels of pyramids are paired by size; leave student_stages and teacher_stages empty")
        student, teacher = self._stages(task.probe(self.student), task.probe(self.teacher))
        mid = min(hp.mid_channels, student[-1].shape[1])
        last = len(student) - 1
        self.abfs = nn.ModuleList(
            ABF(s.shape[1], mid, t.shape[1], fuse=i < last)
            for i, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def _stages(self, student: Out, teacher: Out) -> tuple[list[Tensor], list[Tensor]]:
        """The chosen stages of both, shallow to deep, then the pooled ones; the teacher's are constants.

        Of feature pyramids their levels, fine to coarse, and nothing that is pooled.
        """
        hp = self.hp
        if hp.student_features == PYRAMID:
            pairs = level_pairs(student.dense.fpn, teacher.dense.fpn)
        else:
            pairs = pair_stages(
                getattr(student, hp.student_features),
                getattr(teacher, hp.teacher_features),
                hp.student_stages,
                hp.teacher_stages,
            )
            pairs.append((student.emb, teacher.emb.detach()))
        return [_as_map(s) for s, _ in pairs], [_as_map(t) for _, t in pairs]

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        own, stages = self._stages(out, target)
        outputs = review(list(self.abfs), own, stages)
        total = torch.stack([hcl(o, t, hp.levels) for o, t in zip(outputs, stages, strict=True)]).sum()
        weight = at.by_epoch(lambda epoch: hp.review_weight * ramp("from_zero", epoch, hp.warmup_epochs))
        terms = {
            "task": hp.ce_weight * self.task.loss(out, batch),
            "review": weight * total,
        }
        if hp.kl_weight:
            terms["kl"] = hp.kl_weight * kd_loss(out.logits, target.logits, hp.temperature)
        return terms
