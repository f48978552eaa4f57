"""The objective most teacher-student methods share: the task's loss, a softened divergence, a term of their own.

It is RepDistiller's ``gamma CE + alpha KL + beta L`` (Tian, Krishnan & Isola 2020), one phase or two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from torch import Tensor

from kdbench.contract import UNSHOWN, At, Batch, Group, Method, Needs, Out, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.matching import pair_stages


class Imitation(Method, ABC):
    """Task loss, optional softened divergence and a method's own terms, minimised together.

    The card has ``ce_weight``, ``kd_weight`` and ``temperature`` beside the method's own hyper-parameters.

    Attributes:
        reads: fields of :class:`Out` that both networks must fill.
        min_batch, one_process: see :class:`Needs`.
    """

    reads: ClassVar[frozenset[str]]
    min_batch: ClassVar[int] = 1
    one_process: ClassVar[str | None] = UNSHOWN

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        softened = bool(hp.kd_weight)  # the divergence reads class scores
        scores = frozenset({"logits"} if softened else ())
        return Needs(
            kinds=frozenset({"classification"}) if softened else None,
            student=cls.reads | scores,
            teacher=cls.reads | scores,
            min_batch=cls.min_batch,
            one_process=cls.one_process,
        )

    @abstractmethod
    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        """The method's own terms, 0-d and weighted, from the student's and the teacher's outputs for a batch."""

    def supervision(self, batch: Batch, out: Out, target: Out | None) -> dict[str, Tensor]:
        """The task's loss, and the divergence where it has a weight; only that reads ``target``."""
        hp = self.hp
        terms = {"task": hp.ce_weight * self.task.loss(out, batch)}
        if hp.kd_weight:
            assert target is not None
            terms["kd"] = hp.kd_weight * kd_loss(out.logits, target.logits, hp.temperature)
        return terms

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, target = self.student(batch), self.teacher(batch)
        return {**self.supervision(batch, out, target), **self.imitation(out, target)}


class StageWise(Imitation):
    """Own terms over pairs of stage maps; the card's ``student_stages`` and ``teacher_stages`` choose them.

    Attributes:
        field: the field of :class:`Out` that holds the maps.
    """

    reads = frozenset({"maps"})
    field: ClassVar[Literal["maps", "preact"]] = "maps"

    def setup(self) -> None:
        self.build(self.pairs(self.task.probe(self.student), self.task.probe(self.teacher)))

    def build(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Makes the modules, sized by maps of two rows; a method without any leaves this as it is."""

    def pairs(self, out: Out, target: Out) -> list[tuple[Tensor, Tensor]]:
        """Student and teacher maps, shallow to deep; see :func:`pair_stages`."""
        hp = self.hp
        return pair_stages(getattr(out, self.field), getattr(target, self.field), hp.student_stages, hp.teacher_stages)


class Initialisation(Imitation):
    """The own terms train the student's trunk in a first phase alone; the second phase is without them.

    The first phase lasts ``first_phase`` of the task's epochs at its constant base learning rate.
    """

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """The second phase's terms; the teacher runs only where the divergence has a weight."""
        target = self.teacher(batch) if self.hp.kd_weight else None
        return self.supervision(batch, self.student(batch), target)

    def first_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """The first phase's terms."""
        return self.imitation(self.student(batch), self.teacher(batch))

    def groups(self) -> list[Group]:
        return [Group("student", list(self.student.parameters()))]

    def stages(self) -> Iterator[Stage]:
        everything = [Group("student", [p for p in self.parameters() if p.requires_grad], schedule="constant")]
        yield Stage(
            "initialise",
            groups=everything,
            losses=self.first_losses,
            epochs=phase_epochs(self.hp.first_phase, self.task.epochs),
            ledger="warmup_phase",
        )
        yield Stage("distill", groups=self.groups(), losses=self.losses, epochs=self.task.epochs)


def phase_epochs(share: float, epochs: int) -> int:
    """Epochs of a phase that takes a share of the task's epochs, at least one."""
    return max(1, round(share * epochs))
