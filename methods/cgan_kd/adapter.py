"""Distillation through samples of a conditional GAN (Ding, Wang, Xu, Wang, Welch, ESWA 2023).

Stages: the student on real rows alone; a GAN, its label embedding and a density ratio, all fitted to the student's
training rows; then, between two stages, fakes are drawn, subsampled, filtered and relabelled; last the student goes on
with real and fake rows, by the task's loss or by another method's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import VALUES, At, Batch, Group, Inner, Method, Needs, Network, Rows, Stage
from kdbench.methods.cgan_kd.generator import MakesFakes

STUDENT_ONLY = ("inner", "finetune_lr")
"""Hyper-parameters that do not decide the fakes: runs that differ in them share a set."""
OWN_KINDS = frozenset({"classification", "regression"})
MIN_BATCH = 2


class CGANKD(MakesFakes):
    """The student on real and processed fake rows, alone or through an inner method."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        """Its own needs, joined with those of the inner method."""
        reads = {"logits"} | ({"emb"} if hp.subsample and hp.features == "teacher" else set())
        why = "the stages of its generator make updates of their own"
        own = Needs(
            kinds=OWN_KINDS, inputs="same", teacher=frozenset(reads), batch=frozenset({VALUES}), min_batch=MIN_BATCH,
            one_process=why,
        )  # fmt: skip
        if hp.inner is None:
            return own
        inner = hp.inner.needs()
        return replace(
            inner,
            kinds=OWN_KINDS & (inner.kinds or OWN_KINDS),
            inputs="same",
            teachers=tuple(dict.fromkeys((*own.teachers, *inner.teachers))),
            student=own.student | inner.student,
            teacher=own.teacher | inner.teacher,
            batch=own.batch | inner.batch,
            min_batch=max(own.min_batch, inner.min_batch),
            one_process=why,
        )

    def setup(self) -> None:
        super().setup()
        self.inner_method: Method | None = None

    def stages(self) -> Iterator[Stage]:
        yield Stage(
            "vanilla",
            [self._student_group(1.0)],
            losses=self._plain_losses,
            epochs=self.task.epochs,
            ledger="warmup_phase",
        )
        uses = [field.name for field in dataclasses.fields(self.hp) if field.name not in STUDENT_ONLY]
        fakes = self.task.recall("fakes", uses=uses)
        for stage in self.generator_stages():
            yield stage if fakes is None else replace(stage, steps=0, epochs=None)
        if fakes is None:
            fakes = self.task.keep("fakes", self.make_fakes, scope="task", uses=uses)
        yield from self._student_stages(Rows({self.pixels: fakes["x"]}, fakes["y"]))

    def _student_stages(self, fakes: Rows) -> Iterator[Stage]:
        """The student on real and fake rows, at the fraction ``finetune_lr`` of the task's learning rate."""
        inner: Inner | None = self.hp.inner
        if inner is None:
            group = self._student_group(self.hp.finetune_lr)
            yield Stage("mixed", [group], losses=self._plain_losses, epochs=self.task.epochs, extra=fakes)
            return
        teachers = self.teachers if inner.needs().teachers else {}
        students: list[Network] = list(self.students)  # type: ignore[arg-type]
        self.inner_method = inner.build(self.task.extend(fakes), students, teachers)
        for stage in self.inner_method.stages():
            groups = [self._slowed(group) for group in stage.groups]
            extra = fakes if stage.extra is None else joined(fakes, stage.extra)
            yield replace(stage, name=f"mixed-{stage.name}", groups=groups, extra=extra)

    def _student_group(self, factor: float) -> Group:
        return Group("student", list(self.students.parameters()), {"lr": factor * self.task.optimizer["lr"]})

    def _slowed(self, group: Group) -> Group:
        """A group of the inner method; one with an optimiser of its own keeps its rate."""
        name = self.task.optimizer["name"]
        if group.optimizer.get("name", name) != name:
            return group
        rate = group.optimizer.get("lr", self.task.optimizer["lr"])
        return replace(group, optimizer={**group.optimizer, "lr": self.hp.finetune_lr * rate})

    def _plain_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        terms = [self.task.loss(student(batch), batch) for student in self.students]
        return {"task": torch.stack(terms).sum()}

    def after_step(self, batch: Batch, at: At) -> None:
        if self.inner_method is not None:
            self.inner_method.after_step(batch, at)

    @property
    def deployed(self) -> nn.Module:
        return self.student if self.inner_method is None else self.inner_method.deployed


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    return Rows({name: torch.cat([x, second.x[name]]) for name, x in first.x.items()}, torch.cat([first.y, second.y]))
