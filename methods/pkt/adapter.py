"""Probabilistic knowledge transfer (Passalis & Tefas, ECCV 2018), with the cosine kernel."""

from __future__ import annotations

from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.shared.objective import Imitation

EPS = 1e-7


def affinities(x: Tensor) -> Tensor:
    """(N, N) probabilities of picking row j beside row i, from cosines scaled to [0, 1]; (N, D) embeddings."""
    norm = x.norm(dim=1, keepdim=True)
    x = x.masked_fill(norm == 0, 0.0) / (norm + EPS)  # a zero row has no direction, and no gradient
    kernel = (x @ x.T + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / N^2 sum_ij q_ij log(q_ij / p_ij) of the teacher's affinities q and the student's p, 0-d.

    Args:
        student, teacher: (N, D) embeddings of the same rows, the widths may differ; the teacher's are constants.
    """
    p, q = affinities(student), affinities(teacher.detach())
    return (q * ((q + EPS) / (p + EPS)).log()).mean()


class PKT(Imitation):
    """Rows of a batch lie near each other with the teacher's probabilities."""

    reads = frozenset({"emb"})
    min_batch = 2
    one_process = None

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        return {"pkt": self.hp.pkt_weight * pkt_loss(self.task.gather(out.emb), self.task.gather(target.emb))}
