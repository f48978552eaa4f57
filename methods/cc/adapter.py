"""Correlation congruence (Peng et al., ICCV 2019), in the form its author gave to RepDistiller."""

from __future__ import annotations

from torch import Tensor, nn

from kdbench.contract import Out
from kdbench.methods.shared.objective import Imitation


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / (N - 1) sum_i <d_i, d_i+1> with d_i = |s_i - t_i| over neighbouring rows, 0-d.

    Args:
        student, teacher: (N, D) embeddings of the same rows; their order counts.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(student) < 2:
        raise ValueError(f"correlation congruence compares neighbouring rows, the batch has {len(student)}")
    difference = (student - teacher).abs()
    return (difference[:-1] * difference[1:]).sum(dim=1).mean()


class CC(Imitation):
    """Two linear maps, both trained, take pooled features to one width where differences correlate little."""

    reads = frozenset({"emb"})
    min_batch = 2
    one_process = None

    def setup(self) -> None:
        task, hp = self.task, self.hp
        student, teacher = task.probe(self.student).emb, task.probe(self.teacher).emb
        self.embed_student = nn.Linear(student.shape[1], hp.width)
        self.embed_teacher = nn.Linear(teacher.shape[1], hp.width)

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        student = self.task.gather(self.embed_student(out.emb))
        teacher = self.task.gather(self.embed_teacher(target.emb.detach()))
        return {"correlation": self.hp.correlation_weight * correlation_loss(student, teacher)}
