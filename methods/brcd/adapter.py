"""Bit-mask robust contrastive distillation of hashing nets (BRCD, WWW 2024, arXiv 2403.06071).

Shapes: N rows of a batch in two views i and j, L bits, M clusters of the teacher's codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, NotApplicable, Stage, bits
from kdbench.methods.shared.matching import unit

EPS = 1e-8
OUT_OF_REACH = -1000.0
"""Added to the score of a negative of a row's own cluster."""
STARTS = 30
"""Of k-means."""


class Clusters(NamedTuple):
    """What is known of the teacher's codes of the training rows.

    Attributes:
        own: (n,) cluster of each row.
        centres: (M, L) mean codes.
        mask: (M, L) 1 for the bits of a cluster that count, 0 for the others.
    """

    own: Tensor
    centres: Tensor
    mask: Tensor


def clustered(codes: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """k-means of (n, L) codes: (n,) cluster of each row and (M, L) centres, M at most the number of distinct codes."""
    from sklearn.cluster import KMeans

    found = KMeans(min(clusters, len(codes.unique(dim=0))), n_init=STARTS, random_state=seed).fit(codes.cpu().numpy())
    return torch.from_numpy(found.labels_).long().to(codes.device), torch.from_numpy(found.cluster_centers_).to(codes)


def bit_mask(centres: Tensor, margin: float, rule: str) -> Tensor:
    """(M, L) mask of bits.

    Args:
        centres: (M, L) mean codes.
        rule: ``intended`` keeps the bits whose mean is beyond the margin, and all of a cluster that has none;
            ``released`` keeps none, which is what the published script computes; ``none`` keeps all.
    """
    if rule != "intended":
        return torch.full_like(centres, float(rule == "none"))
    kept = (centres.abs() > margin).to(centres)
    return torch.where(kept.any(dim=1, keepdim=True), kept, 1.0)


def distilled(
    code: Tensor,
    teacher_i: Tensor,
    teacher_j: Tensor,
    own: Tensor,
    clusters: Clusters,
    alpha: float,
    temperature: float,
    filtered: bool,
) -> Tensor:
    """The contrast of the student's bits with the teacher's, 0-d, mean over 2 N rows.

    A row's positive mixes the teacher's bits of its own view, alpha, and of the other view, 1 - alpha. With the filter,
    a teacher's view that lies in another cluster than the row is none, and rows of one cluster are no negatives.

    Args:
        code: (N, L) the student's bits of view i.
        teacher_i, teacher_j: (N, L) the teacher's bits of both views, constants.
        own: (N,) cluster of each row.
    """
    n, mask = len(code), clusters.mask[own]
    masked = mask * teacher_j
    pool = unit(torch.cat([mask * code, masked]), eps=EPS)
    scores = pool @ pool.T / temperature
    both = torch.arange(2 * n, device=code.device)
    partner = both.roll(n)
    weight, negatives = torch.full_like(code[:, 0], alpha), scores
    if filtered:
        near = torch.cdist(masked, clusters.centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        weight = torch.where(near != own, 1.0, weight)
        negatives = scores + OUT_OF_REACH * (own.repeat(2)[:, None] == torch.cat([own, near]))
    weight = weight.repeat(2)
    anchor = F.cosine_similarity(code, teacher_i, eps=EPS).repeat(2) / temperature
    positive = weight * anchor + (1 - weight) * scores[both, partner]
    # The positive takes its partner's place; a row is no negative of itself.
    logits = negatives.scatter(1, partner[:, None], positive[:, None]).masked_fill(both[:, None] == both, -torch.inf)
    return F.cross_entropy(logits, partner)


class BRCD(Method):
    """The student's bits are found among the teacher's, those that say nothing of a cluster left out."""

    clusters: Clusters

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        code = frozenset({"code"})
        return Needs(
            kinds=frozenset({"hashing"}),
            student=code,
            teacher=code,
            batch=frozenset({"index"}),
            one_process="its loss compares the rows of a batch with one another",
        )

    def setup(self) -> None:
        own, other = (self.task.probe(net).code.shape[1] for net in (self.student, self.teacher))
        if own != other:
            raise NotApplicable(f"student and teacher need codes of one length, they have {own} and {other} bits")

    def stages(self) -> Any:
        self.clusters = self._clusters()
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs)

    def _clusters(self) -> Clusters:
        hp = self.hp
        seed = int(torch.randint(2**31 - 1, (), generator=self.task.rng("clusters")))

        def make() -> dict[str, Tensor]:
            own, centres = clustered(self._teachers_codes(), hp.clusters, seed)
            return {"own": own, "centres": centres}

        kept = self.task.keep("clusters", make)
        return Clusters(kept["own"], kept["centres"], bit_mask(kept["centres"], hp.margin, hp.mask))

    @torch.no_grad()
    def _teachers_codes(self) -> Tensor:
        """(n, L) the teacher's bits of all training rows, not augmented."""
        rows = torch.arange(self.task.n_train, device=self.task.device)
        found = [bits(self.teacher(self.task.wrap(self.task.rows(part))).code) for part in rows.split(self.task.batch)]
        return torch.cat(found)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        with torch.no_grad():
            teacher = batch.unview(bits(self.teacher(batch).code))
        code = batch.unview(bits(out.code))[0]
        own = self.clusters.own[batch.view(0).index]
        contrast = distilled(
            code, teacher[0], teacher[1], own, self.clusters, hp.alpha, hp.temperature, hp.cluster_filter
        )
        return {"task": self.task.loss(out, batch), "distill": contrast}
