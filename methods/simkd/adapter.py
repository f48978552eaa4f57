"""Knowledge distillation with the reused teacher classifier (Chen et al., CVPR 2022, equation 2).

The deployed network is the student's trunk, a projector to the teacher's features, and the teacher's classifier.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Method, Needs, Network, NotApplicable, Out
from kdbench.methods.shared.connectors import CONV, NORM
from kdbench.methods.shared.matching import pool, same_axes
from kdbench.models.base import scores


def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """mean (h(F_s) - F_t)^2 of projected maps and the teacher's, pooled to their size where larger; 0-d.

    Args:
        projected: (N, C, *size).
        teacher: (N, C, *larger), a constant.
    """
    projected, teacher = same_axes(projected, teacher.detach())
    return F.mse_loss(projected, pool(teacher, projected.shape[2:]))


class Projector(nn.Module):
    """Three convolutions (1, 3, 1), each with batch norm and ReLU, from student maps to the teacher's width.

    Args:
        student, teacher: (C, *size) of one map of each network, with equally many axes.
        factor: the middle width is the teacher's divided by this.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], factor: int) -> None:
        super().__init__()
        self.size = [min(sizes) for sizes in zip(student[1:], teacher[1:], strict=True)]
        axes, middle = len(self.size), max(1, teacher[0] // factor)
        widths = (student[0], middle, middle, teacher[0])
        self.convs, self.bns = nn.ModuleList(), nn.ModuleList()
        for i, kernel in enumerate((1, 3, 1)):
            self.convs.append(CONV[axes](widths[i], widths[i + 1], kernel, padding=kernel // 2, bias=False))
            self.bns.append(NORM[axes](widths[i + 1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *size) of the student, pooled to the smaller of both sizes, to the teacher's width."""
        x = pool(x, self.size)
        for conv, bn in zip(self.convs, self.bns, strict=True):
            x = bn(conv(x)).relu()
        return x


class Projected(Network):
    """A student whose projected last map goes through the teacher's pooling and classifier.

    Args:
        student: its classifier is taken off.
        projector: from its last map.
        classifier: the teacher's, frozen.
    """

    def __init__(self, student: Network, projector: Projector, classifier: nn.Linear) -> None:
        super().__init__()
        own = next(name for name, module in student.named_modules() if module is student.classifier)
        student.set_submodule(own, nn.Identity())
        self.trunk, self.projector = student, projector
        self.reused = copy.deepcopy(classifier).requires_grad_(False)

    def forward(self, batch: Batch) -> Out:
        """Scores of the teacher's classifier; the one map is the projected one."""
        maps = self.trunk(batch).maps[-1]
        projected = self.projector(maps.reshape(*maps.shape, *[1] * (len(self.projector.size) + 2 - maps.ndim)))
        emb = projected.flatten(2).mean(2)
        return Out(scores(self.reused, emb), (projected,), emb=emb)


class Removed(nn.Module):
    """In the place of a layer that is not needed: a copy, for an activation behind it may work in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class SimKD(Method):
    """The projected last map imitates the map that the teacher's classifier pools; no labels, no other term."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            kinds=None,
            student=frozenset({"maps", "classifier"}),
            teacher=frozenset({"maps", "emb", "classifier"}),
            min_batch=2,  # the projector's batch norm, where maps are 1x1
            changes_student=True,
            one_process=None,
        )

    def setup(self) -> None:
        task = self.task
        target = task.probe(self.teacher)
        self._after_norm = not _is_pooled(target.maps[-1], target.emb)
        if self._after_norm and not (target.preact and _is_pooled(self._target(target), target.emb)):
            raise NotApplicable("the teacher's classifier does not read its pooled last map, so it cannot be reused")
        student, teacher = same_axes(task.probe(self.student).maps[-1], self._target(target))
        projector = Projector(student.shape[1:], teacher.shape[1:], self.hp.factor)
        self.net = Projected(self.student, projector.to(task.device), self.teacher.classifier)
        self._strip()

    def _target(self, out: Out) -> Tensor:
        """The teacher's last map after its last activation."""
        return out.preact[-1].relu() if self._after_norm else out.maps[-1]

    def _reached(self) -> set[nn.Parameter]:
        """Trainable parameters that the projected map depends on."""
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        batch = self.task.wrap(self.task.rows(torch.arange(2, device=self.task.device)))
        was_training = self.net.training
        with torch.enable_grad():
            total = self.net.eval()(batch).maps[0].sum()
        self.net.train(was_training)
        grads = torch.autograd.grad(total, parameters, allow_unused=True)
        return {p for p, grad in zip(parameters, grads, strict=True) if grad is not None}

    def _strip(self) -> None:
        """Takes off the layers behind the student's last map: the projector stands in their place."""
        reached = self._reached()
        for name, layer in list(self.net.trunk.named_modules()):
            own = set(layer.parameters(recurse=False))
            if own and own == set(layer.parameters()) and own.isdisjoint(reached):
                self.net.trunk.set_submodule(name, Removed())

    @property
    def deployed(self) -> nn.Module:
        return self.net

    def groups(self) -> list[Group]:
        return [Group("student", [p for p in self.net.parameters() if p.requires_grad])]

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        projected, target = self.net(batch).maps[0], self._target(self.teacher(batch))
        return {"feature": self.hp.feature_weight * feature_loss(projected, target)}


def _is_pooled(maps: Tensor, emb: Tensor) -> bool:
    """Whether an embedding is the mean of a map over its positions; networks may compute in bf16, of 8 bits."""
    pooled = maps.flatten(2).mean(2)
    if pooled.shape != emb.shape:
        return False
    return bool((pooled - emb).norm() <= torch.finfo(torch.bfloat16).eps * emb.norm() + 1e-5)
