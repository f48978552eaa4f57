"""Joint data augmentation and cosine confidence distillation (Li, Shao et al., ACCV 2022)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Inner, Method, Needs, NotApplicable, Stage
from kdbench.methods.shared.jda import jda
from kdbench.methods.shared.logits import require_classes

KINDS = frozenset({"classification"})


def confidence(plain: Tensor, augmented: Tensor) -> Tensor:
    """(N,) 1 + cosine of the teacher's (N, C) logits of the two views, in [0, 2], constants."""
    return 1 + F.cosine_similarity(plain.detach(), augmented.detach(), dim=1, eps=1e-8)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(N,) KL(softmax(teacher / T) || softmax(student / T)) of each row of (N, C) logits; no factor T^2."""
    log_q = F.log_softmax(student / temperature, dim=1)
    log_p = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def soft_losses(student: Tensor, teacher: Tensor, temperature: float, confident: bool = True) -> tuple[Tensor, Tensor]:
    """Mean divergence of the plain rows and, weighted by confidence, of the augmented rows; each 0-d, no factor T^2.

    Args:
        student, teacher: (2, N, C) logits, plain view first.
        confident: False weighs every augmented row by 1.

    Raises:
        ValueError: other than two views, or different numbers of classes.
    """
    if student.shape != teacher.shape or len(student) != 2:
        raise ValueError(f"two views of equal shape are expected, given {tuple(student.shape)}, {tuple(teacher.shape)}")
    plain, augmented = (divergence(s, t, temperature) for s, t in zip(student, teacher, strict=True))
    if confident:
        augmented = confidence(*teacher) * augmented
    return plain.mean(), augmented.mean()


class CCD(Method):
    """Both views distilled; or both views given to an inner method."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        inner: Inner | None = hp.inner
        if inner is None:
            return Needs(inputs="same", views=2, one_process=None)
        of_inner = inner.needs()
        return replace(of_inner, kinds=KINDS & (of_inner.kinds or KINDS), inputs="same", views=2)

    def setup(self) -> None:
        task, hp = self.task, self.hp
        require_classes(task, 2)
        self.views = jda(task, (self.student, *self.teachers.values()), hp.policy, hp.probability)
        self.inner = None if hp.inner is None else self._built(hp.inner)
        if self.inner is None:
            classes = [task.probe(net).logits.shape[1] for net in (self.student, self.teacher)]
            if classes[0] != classes[1]:
                raise NotApplicable(f"the student has {classes[0]} classes, the teacher {classes[1]}")
            if hp.ce_weight == 0:
                warnings.warn(
                    "ccd: ce_weight=0 leaves the divergence T^2 and its weight; the official code drops both then",
                    stacklevel=2,
                )

    def _built(self, inner: Inner) -> Method:
        if inner.needs().views > 1:
            raise NotApplicable(f"{inner.name} makes views of its own")
        return inner.build(self.task, list(self.students), self.teachers)  # type: ignore[arg-type]

    @property
    def deployed(self) -> Any:
        return self.student if self.inner is None else self.inner.deployed

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        student, teacher = (batch.unview(net.logits) for net in (out, target))
        plain, augmented = soft_losses(student, teacher, hp.temperature, hp.confidence)
        soft_weight = 1 - hp.ce_weight if hp.soft_weight is None else hp.soft_weight
        scale = hp.kd_weight * soft_weight * hp.temperature**2 / 2
        return {
            "task": hp.kd_weight * hp.ce_weight * self.task.loss(out, batch),
            "plain_view": scale * plain,
            "augmented_view": scale * augmented,
        }

    def after_step(self, batch: Batch, at: At) -> None:
        if self.inner is not None:
            self.inner.after_step(batch, at)

    def stages(self) -> Iterator[Stage]:
        for stage in super().stages() if self.inner is None else self.inner.stages():
            yield replace(stage, views=self.views)
