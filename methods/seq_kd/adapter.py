"""Sequence-level distillation (Kim and Rush, EMNLP 2016): the student trains on what the teacher writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, NotApplicable, Stage
from kdbench.methods.shared.sentences import TEXTS, nearest_reference, retold, written


class SeqKD(Method):
    """The teacher writes every training row anew, before training; then the task's own loss of these targets.

    Of a beam the likeliest is taken, or the one nearest to the reference by sentence BLEU (sequence-level
    interpolation). With ``draw`` texts are drawn from the teacher, as a language model without prompts needs.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS, teacher=frozenset({"generate"}))

    def setup(self) -> None:
        if self.hp.nearest and self.hp.beam < 2:
            raise NotApplicable("of a beam of 1 there is nothing to choose from; raise method.beam")
        if not self.hp.draw and not self.task.raw_shape[self.teacher.input][-1]:
            raise NotApplicable("nothing is read, so the likeliest text is one for all rows; set method.draw=true")

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        return {"task": self.task.loss(self.student(batch), batch)}

    def stages(self) -> Iterator[Stage]:
        task, hp = self.task, self.hp

        def make() -> dict[str, Tensor]:
            if hp.draw:
                rng = torch.Generator(task.device).manual_seed(task.rng("written").initial_seed())
                return written(task, self.teacher, hp.longest, 1, rng=rng)
            return written(task, self.teacher, hp.longest, hp.beam, nearest_reference if hp.nearest else None)

        made = task.keep("written", make, "task", "teacher_cache", ("beam", "longest", "nearest", "draw"))
        y = task.rows(torch.arange(task.n_rows, device=task.device)).y
        yield Stage("distill", self.groups(), losses=self.losses, epochs=task.epochs, targets=retold(y, made))
