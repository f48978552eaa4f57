"""FitNets hint (Romero et al., ICLR 2015), trained together with the task as RepDistiller does.

Of detectors the levels of the pyramid are the hints, the plain imitation that detection papers compare with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import Needs, NotApplicable, Out
from kdbench.methods.shared.connectors import regressor
from kdbench.methods.shared.matching import same_axes
from kdbench.methods.shared.objective import Imitation
from kdbench.methods.shared.pyramids import aligned, level_pairs

PYRAMID = 0
"""Instead of a stage: all levels of a detector's pyramid."""


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean (r(F_s) - F_t)^2 of the regressed student map and the teacher map, 0-d.

    Args:
        student, teacher: (N, C, *size) of one shape; the teacher's is a constant.
    """
    return F.mse_loss(student, teacher.detach())


class FitNet(Imitation):
    """The student's map of one stage, or of each pyramid level, through a regressor, imitates the teacher's."""

    reads = frozenset({"maps"})
    min_batch = 2  # the regressor's batch norm, where maps are 1x1
    one_process = None

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        stages = super().needs(hp)
        if hp.hint_stage != PYRAMID:
            return stages
        levels = {side: getattr(stages, side) - cls.reads | {"fpn"} for side in ("student", "teacher")}
        return replace(stages, **levels, min_batch=1)

    def setup(self) -> None:
        pairs = self._hints(self.task.probe(self.student), self.task.probe(self.teacher))
        if self.hp.hint_stage == PYRAMID:
            self.levels = nn.ModuleList(aligned(s, t) for s, t in pairs)
            return
        [(student, teacher)] = pairs
        try:
            self.regressor = regressor(student.shape[1:], teacher.shape[1:], nn.ReLU())
        except ValueError as error:
            raise NotApplicable(f"hint stage {self.hp.hint_stage}: {error}") from error

    def _hints(self, out: Out, target: Out) -> list[tuple[Tensor, Tensor]]:
        """Student and teacher maps of the hint stage, or of all pyramid levels."""
        if self.hp.hint_stage == PYRAMID:
            return level_pairs(out.dense.fpn, target.dense.fpn)
        stages = min(len(out.maps), len(target.maps))
        if self.hp.hint_stage > stages:
            raise NotApplicable(f"hint stage {self.hp.hint_stage} is not there, one of the networks has {stages}")
        place = self.hp.hint_stage - 1
        return [same_axes(out.maps[place], target.maps[place])]

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        regressors = self.levels if self.hp.hint_stage == PYRAMID else [self.regressor]
        pairs = zip(regressors, self._hints(out, target), strict=True)
        losses = [hint_loss(regress(student), teacher) for regress, (student, teacher) in pairs]
        return {"hint": self.hp.hint_weight * torch.stack(losses).sum()}
