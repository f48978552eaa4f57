"""Flow of the solution procedure (Yim et al., CVPR 2017): an initialisation, then the task alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import NotApplicable, Out
from kdbench.methods.shared.matching import match
from kdbench.methods.shared.objective import Initialisation


def flow(shallow: Tensor, deep: Tensor) -> Tensor:
    """(N, C, D) inner products over positions, divided by their number, of maps (N, C, *size) and (N, D, *size).

    Both maps are of one network; the larger is pooled to the smaller.
    """
    a, b = (m.flatten(2) for m in match(shallow, deep))
    return a @ b.mT / a.shape[2]


def flow_losses(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[Tensor]:
    """mean (G_s - G_t)^2 of the flow matrices of each two neighbouring maps, 0-d, shallow to deep.

    Args:
        student, teacher: maps (N, C, *size) of a network each; channels must agree, sizes need not. The teacher's are
            constants.

    Raises:
        ValueError: the networks' channels differ; both are named.
    """
    channels, wanted = [m.shape[1] for m in student], [m.shape[1] for m in teacher]
    if channels != wanted:
        raise ValueError(f"flow matrices need equal channels, the student's are {channels}, the teacher's {wanted}")
    flows = zip(pairwise(student), pairwise(teacher), strict=True)
    return [F.mse_loss(flow(*s), flow(*(m.detach() for m in t))) for s, t in flows]


class FSP(Initialisation):
    """In the first phase the student's flow matrices, from stem to last stage, become the teacher's."""

    reads = frozenset({"maps"})
    one_process = None

    def setup(self) -> None:
        task = self.task
        student, teacher = self._maps(task.probe(self.student), task.probe(self.teacher))
        if len(student) < 2:
            raise NotApplicable("flow matrices need at least two maps, the student has one")
        try:
            flow_losses(student, teacher)
        except ValueError as error:
            raise NotApplicable(str(error)) from error

    @staticmethod
    def _maps(out: Out, target: Out) -> tuple[list[Tensor], list[Tensor]]:
        """Stem, where both networks have one, and stages."""
        stems = [(out.stem, target.stem)] if out.has("stem") and target.has("stem") else []
        return [*(s for s, _ in stems), *out.maps], [*(t for _, t in stems), *target.maps]

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        return {"flow": self.hp.flow_weight * torch.stack(flow_losses(*self._maps(out, target))).sum()}
