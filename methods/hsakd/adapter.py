"""Hierarchical self-supervised augmented knowledge distillation (Yang, An, Cai, Xu, IJCAI 2021, equations 3 to 8).

Shapes: N images, C classes, four rotations of each image, the first of them upright.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import ANY_TEACHER, At, Batch, Group, Needs, NotApplicable, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.heads import JointHeads, joint_labels
from kdbench.methods.shared.objective import phase_epochs
from kdbench.methods.shared.phases import Phased, reusable
from kdbench.methods.shared.views import ROTATIONS, rotated

TEACHER_STEPS = (0.3, 0.6, 0.9)
"""Shares of the teacher's stage after which its learning rate falls, where its backbone is frozen."""


class Scores(NamedTuple):
    """What a network with joint heads says of rotated images.

    Attributes:
        logits: (4, N, C) of its own classifier.
        joint: (4, N, 4 C) of each head, shallow to deep.
    """

    logits: Tensor
    joint: Sequence[Tensor]


def class_loss(scores: Scores, y: Tensor) -> Tensor:
    """Cross-entropy of the upright images with their (N,) classes, 0-d."""
    return F.cross_entropy(scores.logits[0], y)


def joint_loss(scores: Scores, y: Tensor) -> Tensor:
    """Cross-entropies of all heads with the joint labels of (N,) classes, summed over the heads, 0-d."""
    labels = joint_labels(y).flatten()
    return torch.stack([F.cross_entropy(head.flatten(0, 1), labels) for head in scores.joint]).sum()


def agreement(student: Scores, teacher: Scores, temperature: float) -> Tensor:
    """Softened divergences of all heads and of the classifier, over all rotations, summed, 0-d.

    Args:
        teacher: constants.
    """
    pairs = zip([student.logits, *student.joint], [teacher.logits, *teacher.joint], strict=True)
    return torch.stack([kd_loss(s.flatten(0, 1), t.flatten(0, 1), temperature) for s, t in pairs]).sum()


class HSAKD(Phased):
    """Heads on every stage of both networks agree on class and rotation; they are dropped after training.

    Offline, the teacher's heads are trained first, alone or with the teacher; online, two peers teach each other.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        fields = frozenset({"logits", "maps", "tail"})
        online = hp.form == "online"
        return Needs(
            inputs="any" if online else "same",
            teachers=() if online else (ANY_TEACHER,),
            students=2 if online else 1,
            student=fields,
            teacher=fields,
            data=frozenset({"rotation_safe"}),
            views=ROTATIONS,
            min_batch=2,  # a batch norm in a head, where maps are 1x1
            trains_teacher=not online and hp.teacher_stage == "joint",
            one_process=None,
        )

    def setup(self) -> None:
        task, hp = self.task, self.hp
        nets = [*self.students] if hp.form == "online" else [self.student, self.teacher]
        self.views = rotated(task, *nets)
        stages = [len(task.probe(net).maps) for net in nets]
        if stages[0] != stages[1]:
            raise NotApplicable(
                f"the student has {stages[0]} stages and the teacher {stages[1]}; heads pair one to one"
            )
        self.heads = nn.ModuleList(JointHeads(net, stages[0], task.classes) for net in nets)
        if hp.form == "offline":
            taught = {"heads": self.heads[1]} | ({"net": self.teacher} if hp.teacher_stage == "joint" else {})
            self.taught = nn.ModuleDict(taught)

    def scores(self, net: nn.Module, heads: nn.Module, batch: Batch) -> Scores:
        """Of all rotations in ``batch``."""
        out = net(batch)
        return Scores(batch.unview(out.logits), [batch.unview(head) for head in heads(out.maps)])

    def teacher_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of the teacher's stage; its own classifier has one where the backbone is trained too."""
        y = batch.unview(batch.y)[0]
        scores = self.scores(self.teacher, self.heads[1], batch)
        terms = {"joint": joint_loss(scores, y)}
        return terms | ({"ce": class_loss(scores, y)} if self.hp.teacher_stage == "joint" else {})

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        y = batch.unview(batch.y)[0]
        scores = self.scores(self.student, self.heads[0], batch)
        with torch.no_grad():
            target = self.scores(self.teacher, self.heads[1], batch)
        return {"ce": class_loss(scores, y), "kd": agreement(scores, target, self.hp.temperature)}

    def peer_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of both peers, each the other's teacher."""
        y = batch.unview(batch.y)[0]
        first, second = (self.scores(net, heads, batch) for net, heads in zip(self.students, self.heads, strict=True))
        terms: dict[str, Tensor] = {}
        for name, own, other in (("first", first, second), ("second", second, first)):
            terms |= {f"{name}_ce": class_loss(own, y), f"{name}_joint": joint_loss(own, y)}
            terms[f"{name}_kd"] = agreement(own, other, self.hp.temperature)
        return terms

    def stages(self) -> Iterator[Stage]:
        if self.hp.form == "online":
            groups = [Group("peers", [*self.students.parameters(), *self.heads.parameters()])]
            yield Stage("distill", groups, losses=self.peer_losses, epochs=self.task.epochs, views=self.views)
            return
        frozen = self.hp.teacher_stage == "frozen"
        teacher_stage = Stage(
            f"teacher_{self.hp.teacher_stage}",
            [Group("teacher", list(self.taught.parameters()), schedule=TEACHER_STEPS if frozen else "task")],
            losses=self.teacher_losses,
            epochs=phase_epochs(self.hp.frozen_phase, self.task.epochs) if frozen else self.task.epochs,
            views=self.views,
            ledger="teacher_train",
        )
        yield from reusable(self.task, teacher_stage, self.taught, uses=["teacher_stage", "frozen_phase"])
        self.hold(self.taught)
        groups = [Group("student", [*self.student.parameters(), *self.heads[0].parameters()])]
        yield Stage("distill", groups, losses=self.losses, epochs=self.task.epochs, views=self.views)
