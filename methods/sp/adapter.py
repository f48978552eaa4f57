"""Similarity-preserving distillation (Tung & Mori, ICCV 2019)."""

from __future__ import annotations

from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.objective import Imitation


def similarity(x: Tensor) -> Tensor:
    """(N, N) inner products of the flattened rows of (N, ...), each row of the result a unit vector."""
    flat = x.flatten(1)
    return unit(flat @ flat.T)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """||G(F_s) - G(F_t)||_F^2 / N^2 of two similarity matrices, 0-d; 0 for a single row.

    Args:
        student, teacher: (N, ...) maps of the same rows, of any two shapes; the teacher's is a constant.
    """
    return (similarity(student) - similarity(teacher.detach())).square().mean()


class SP(Imitation):
    """Rows that are alike in the teacher's last map are alike in the student's."""

    reads = frozenset({"maps"})
    min_batch = 2
    one_process = None

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        student, teacher = self.task.gather(out.maps[-1]), self.task.gather(target.maps[-1])
        return {"similarity": self.hp.similarity_weight * similarity_loss(student, teacher)}
