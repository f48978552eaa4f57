"""Knowledge distillation meets self-supervision (Xu, Liu, Li, Loy, ECCV 2020, equations 3 to 9).

Shapes: N images, C classes, D width of an embedding, four rotations of each image, the first of them upright. Rows of
turned images are image-major: row 3 n + r - 1 is image n turned r times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Method, Needs, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import row_divergence
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.objective import phase_epochs
from kdbench.methods.shared.phases import reusable
from kdbench.methods.shared.views import ROTATIONS, rotated

HEAD_STEPS = (0.5, 0.75)
"""Shares of the teacher head's stage after which its learning rate falls."""


class ProjectionHead(nn.Module):
    """Linear, ReLU, linear, of one width throughout: (R, D) to (R, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(self.fc1(features).relu())


def turned(rows: Tensor) -> Tensor:
    """(4, N, ...) to the (3 N, ...) rows of turned images, image-major."""
    return rows[1:].transpose(0, 1).flatten(0, 1)


def similarity(embeddings: Tensor) -> Tensor:
    """(3 N, N) cosines of every turned image with every upright one, of (4, N, D) embeddings."""
    rows = unit(embeddings)
    return turned(rows) @ rows[0].T


def own_image(images: int, device: torch.device) -> Tensor:
    """(3 N,) number of the image each turned row shows."""
    return torch.arange(images, device=device).repeat_interleave(ROTATIONS - 1)


def kept(scores: Tensor, truth: Tensor, share: float) -> Tensor:
    """(R,) bool: rows whose truth scores highest, and of the others the ``share`` (rounded down) that rank it best.

    Args:
        scores: (R, K) of the teacher.
        truth: (R,) the right column of each row.
    """
    rank = (scores > scores.gather(1, truth[:, None])).sum(dim=1)
    wrong = (rank > 0).sum()
    count = len(rank) - wrong + (wrong.double() * share).floor().long()
    order = rank.argsort(stable=True)  # equal ranks keep the order of the rows on every platform
    first = torch.arange(len(rank), device=rank.device) < count
    return torch.zeros_like(first).scatter(0, order, first)


def kept_divergence(student: Tensor, teacher: Tensor, temperature: float, keep: Tensor) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), 0-d, mean over the kept rows; 0 where none is.

    Args:
        student, teacher: (R, K) scores; the teacher's are constants.
        keep: (R,) bool.
    """
    return (row_divergence(student, teacher, temperature) * keep).sum() / keep.sum().clamp_min(1)


def head_loss(similarities: Tensor) -> Tensor:
    """Cross-entropy, 0-d, of (3 N, N) cosines as they are, with each turned row's own image."""
    return F.cross_entropy(similarities, own_image(similarities.shape[1], similarities.device))


class SSKD(Method):
    """Scores of upright and turned images, and the pattern of likeness between them, are the teacher's."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        fields = frozenset({"logits", "emb"})
        return Needs(
            inputs="same",
            student=fields,
            teacher=fields,
            data=frozenset({"rotation_safe"}),
            views=ROTATIONS,
            min_batch=2,  # a row of likeness needs another image
            one_process=None,
        )

    def setup(self) -> None:
        self.views = rotated(self.task, self.student, self.teacher, raw=True)
        widths = [self.task.probe(net).emb.shape[1] for net in (self.student, self.teacher)]
        self.student_head, self.teacher_head = (ProjectionHead(width) for width in widths)

    def _joined(self, batch: Batch, rows: Tensor) -> Tensor:
        """(4, N, ...) of the joined batch's rows: which of them are kept is decided among all."""
        return self.task.gather(rows).unflatten(0, (batch.views, -1))

    def head_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of the teacher head's stage."""
        embeddings = self.teacher_head(self.teacher(batch).emb.detach())
        return {"head": head_loss(similarity(self._joined(batch, embeddings)))}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        outs = self.student(batch), self.teacher(batch)
        y = self._joined(batch, batch.y)
        student, teacher = (self._joined(batch, out.logits) for out in outs)
        with torch.no_grad():
            like_teacher = similarity(self._joined(batch, self.teacher_head(outs[1].emb)))
        like_student = similarity(self._joined(batch, self.student_head(outs[0].emb)))
        keep_scores = kept(turned(teacher), turned(y), hp.rotation_share)
        keep_likeness = kept(like_teacher, own_image(y.shape[1], y.device), hp.similarity_share)
        rotation = kept_divergence(turned(student), turned(teacher), hp.rotation_temperature, keep_scores)
        likeness = kept_divergence(like_student, like_teacher, hp.similarity_temperature, keep_likeness)
        return {
            "ce": hp.ce_weight * F.cross_entropy(student[0], y[0]),
            "kd": hp.kd_weight * kd_loss(student[0], teacher[0], hp.temperature),
            "rotation": hp.rotation_weight * rotation,
            "similarity": hp.similarity_weight * likeness,
        }

    def stages(self) -> Iterator[Stage]:
        head_stage = Stage(
            "teacher_head",
            groups=[Group("head", list(self.teacher_head.parameters()), schedule=HEAD_STEPS)],
            losses=self.head_losses,
            views=self.views,
            epochs=phase_epochs(self.hp.head_phase, self.task.epochs),
            ledger="warmup_phase",
        )
        yield from reusable(self.task, head_stage, self.teacher_head, uses=["head_phase"])
        trained = [*self.student.parameters(), *self.student_head.parameters()]
        yield Stage(
            "distill",
            groups=[Group("student", trained)],
            losses=self.losses,
            views=self.views,
            epochs=self.task.epochs,
        )
