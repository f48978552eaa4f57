"""FitNets hint (Romero et al., ICLR 2015), trained together with the task as RepDistiller does."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import NotApplicable, Out
from kdbench.methods.shared.connectors import regressor
from kdbench.methods.shared.matching import same_axes
from kdbench.methods.shared.objective import Imitation


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mean (r(F_s) - F_t)^2 of the regressed student map and the teacher map, 0-d.

    Args:
        student, teacher: (N, C, *size) of one shape; the teacher's is a constant.
    """
    return F.mse_loss(student, teacher.detach())


class FitNet(Imitation):
    """The student's map of one stage, through a regressor sized by both networks, imitates the teacher's."""

    reads = frozenset({"maps"})
    min_batch = 2  # the regressor's batch norm, where maps are 1x1
    one_process = None

    def setup(self) -> None:
        task = self.task
        student, teacher = self._hints(task.probe(self.student), task.probe(self.teacher))
        try:
            self.regressor = regressor(student.shape[1:], teacher.shape[1:], nn.ReLU())
        except ValueError as error:
            raise NotApplicable(f"hint stage {self.hp.hint_stage}: {error}") from error

    def _hints(self, out: Out, target: Out) -> tuple[Tensor, Tensor]:
        stages = min(len(out.maps), len(target.maps))
        if self.hp.hint_stage > stages:
            raise NotApplicable(f"hint stage {self.hp.hint_stage} is not there, one of the networks has {stages}")
        place = self.hp.hint_stage - 1
        return same_axes(out.maps[place], target.maps[place])

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        student, teacher = self._hints(out, target)
        return {"hint": self.hp.hint_weight * hint_loss(self.regressor(student), teacher)}
