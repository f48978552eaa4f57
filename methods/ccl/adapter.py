"""Compositional contrastive learning (Chen, Xian, Koepke, Shan, Akata, CVPR 2021): teachers of other modalities.

Shapes: B rows, B' of them with the teacher's modality, D width of the teacher's embedding, K classes.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import (
    ALL_TEACHERS,
    At,
    Batch,
    Group,
    Method,
    Needs,
    NotApplicable,
    Out,
    TaskInfo,
)
from kdbench.methods.shared.matching import unit

EPS = 1e-10


class Composition(nn.Module):
    """Mixes teacher and student embeddings by a residual on the teacher's and classifies the mixture.

    Args:
        width: D.
        classes: K.
        normalise: whether the embeddings are mixed at unit length; the residual is always on the raw one.
    """

    def __init__(self, width: int, classes: int, normalise: bool = True) -> None:
        super().__init__()
        self.mlp = nn.Linear(2 * width, width)
        self.fc = nn.Linear(width, classes)
        self.normalise = normalise

    def forward(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Composed embedding (B, D) and its logits (B, K) of two (B, D) embeddings."""
        mixed = (unit(teacher), unit(student)) if self.normalise else (teacher, student)
        composed = teacher + self.mlp(torch.cat(mixed, dim=1))
        return composed, self.fc(composed)


def nce(anchor: Tensor, other: Tensor, y: Tensor, tau: float) -> Tensor:
    """Multi-class NCE: pairs of one class are to be likely, pairs of two classes unlikely; 0-d, mean over anchors.

    A row without a negative in the batch has the term of its positives alone; every row is its own positive.

    Args:
        anchor, other: (B, D), not normalised.
        y: (B,) classes.
        tau: temperature of the softmax over the batch.
    """
    log_p = F.log_softmax(unit(anchor) @ unit(other).T / tau, dim=1)
    same = y[:, None] == y
    positive = -(log_p.exp() + EPS).log() * same
    negative = -(EPS - log_p.expm1()).log() * ~same  # 1 - p without cancellation
    counts = same.sum(dim=1)
    return (positive.sum(dim=1) / counts + negative.sum(dim=1) / (len(y) - counts).clamp_min(1)).mean()


def both_ways(a: Tensor, b: Tensor, y: Tensor, tau: float) -> Tensor:
    """:func:`nce` with either embedding as the anchor, summed."""
    return nce(a, b, y, tau) + nce(b, a, y, tau)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(a || b) + KL(b || a) of (B, K) logits, 0-d, mean over the batch, finite for any logits."""
    log_p, log_q = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
    floor = log_p.new_full((), EPS).log()
    forward = log_p.exp() * torch.logaddexp(log_p - log_q, floor)
    backward = log_q.exp() * torch.logaddexp(log_q - log_p, floor)
    return (forward + backward).sum(dim=1).mean()


class Bridge(NamedTuple):
    """Losses of one teacher, each 0-d and without the weight of several teachers.

    Attributes:
        contrast, divergence: of the student.
        composed_task, composed_contrast, composed_divergence: of the composition.
    """

    contrast: Tensor
    divergence: Tensor
    composed_task: Tensor
    composed_contrast: Tensor
    composed_divergence: Tensor


def bridge(
    composition: nn.Module, logits: Tensor, student: Tensor, teacher: Tensor, y: Tensor, tau: float, divergence: float
) -> Bridge:
    """The losses of a teacher and its composition on the B' rows that have its modality.

    The composition's own losses see the student as a constant, so that one backward pass gives the student the
    gradient of its losses and the composition that of both.

    Args:
        logits: (B', K) of the student.
        student, teacher: (B', D) embeddings; the teacher's are constants.
        tau: temperature of the contrast.
        divergence: weight of the symmetric KL.
    """
    teacher = teacher.detach()
    composed, scores = composition(teacher, student)
    fixed, fixed_logits = student.detach(), logits.detach()
    own, own_scores = composition(teacher, fixed)
    return Bridge(
        contrast=both_ways(student, composed, y, tau) + both_ways(student, teacher, y, tau),
        divergence=divergence * symmetric_kl(logits, scores),
        composed_task=F.cross_entropy(own_scores, y),
        composed_contrast=both_ways(fixed, own, y, tau) + both_ways(own, teacher, y, tau),
        composed_divergence=divergence * symmetric_kl(fixed_logits, own_scores),
    )


class CCL(Method):
    """The student's loss, and for every teacher of the task the losses of a bridge to it."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            inputs="other",
            teachers=(ALL_TEACHERS,),
            student=frozenset({"logits", "emb"}),
            teacher=frozenset({"emb"}),
            batch=frozenset({"present"}),
            min_batch=2,
            one_process=None,
        )

    def setup(self) -> None:
        task, hp = self.task, self.hp
        if task.classes < 2:
            raise NotApplicable("it contrasts classes, the task has one")
        width = task.probe(self.student).emb.shape[1]
        widths = {role: task.probe(net).emb.shape[1] for role, net in self.teachers.items()}
        for role, other in widths.items():
            if other != width and hp.unequal_widths == "refuse":
                raise NotApplicable(
                    f"the student's embedding has width {width}, the {role} teacher's {other}; "
                    "method.unequal_widths=project puts a linear layer between"
                )
        self.projections = nn.ModuleList(
            nn.Identity() if other == width else nn.Linear(width, other) for other in widths.values()
        )
        self.compositions = nn.ModuleList(Composition(other, task.classes, hp.normalise) for other in widths.values())
        self.taus = [hp.audio_tau if role == "audio" else hp.tau for role in self.teachers]
        _warn_of_one_class(task)

    def groups(self) -> list[Group]:
        networks = [*self.students.parameters(), *self.projections.parameters()]
        return [
            Group("student", networks),
            Group("compositions", list(self.compositions.parameters()), schedule="constant"),
        ]

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        bridges = [b for i in range(len(self.taus)) if (b := self._bridge(i, batch, out)) is not None]
        several = self.hp.several_weight if len(self.taus) > 1 else 1.0
        weights = {"contrast": several, "divergence": several}
        terms = {"task": self.task.loss(out, batch)}
        for name in Bridge._fields:
            parts = [getattr(b, name) for b in bridges]
            total = torch.stack(parts).sum() if parts else terms["task"].new_zeros(())
            terms[name] = weights.get(name, 1.0) * total
        return terms

    def _bridge(self, i: int, batch: Batch, out: Out) -> Bridge | None:
        """Losses of teacher ``i``; None where no row has its modality: nothing of it is stepped then."""
        teacher = list(self.teachers.values())[i]
        gather = self.task.gather
        rows: Any = slice(None)
        if (present := batch.present.get(teacher.input)) is not None:
            rows = gather(present).nonzero().squeeze(1)  # waits for the device, in tasks with gaps alone
            if not len(rows):
                return None
        of: list[Any] = [out.logits, self.projections[i](out.emb), teacher(batch).emb, batch.y]
        logits, student, embedding, y = (gather(values)[rows] for values in of)
        tau, divergence = self.taus[i], self.hp.divergence_weight
        return bridge(self.compositions[i], logits, student, embedding, y, tau, divergence)


def _warn_of_one_class(task: TaskInfo) -> None:
    """Warns if some batches of a run are to be expected to hold a single class, and so no negatives."""
    shares = task.train_labels.bincount() / task.n_train
    expected = task.epochs * task.steps * float((shares ** min(task.batch, task.n_train)).sum())
    if expected >= 1:
        warnings.warn(
            f"ccl: about {expected:.0f} of its batches hold one class alone and have no negatives; raise train.batch",
            stacklevel=3,
        )
