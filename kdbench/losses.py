"""The methods' own terms as functions of tensors, one name a method, for a training loop of one's own.

Each is 0-d, differentiable in the student's tensors, and takes the teacher's as constants. What a method adds to it
(the loss with the labels, a ramp, one overall weight) stands in its card: ``kdbench show method NAME``. Defaults are
the cards'. Methods whose terms need modules of their own, a memory or several stages are no functions:
:class:`kdbench.Distiller` has those.

Shapes: N rows, C classes, D widths; maps are (N, C, *size), shallow to deep. Sources are named by the functions called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.methods.ab.adapter import boundary_losses
from kdbench.methods.at.adapter import attention_loss
from kdbench.methods.ban.adapter import born_again_loss
from kdbench.methods.cc.adapter import correlation_loss
from kdbench.methods.cwd.adapter import channel_divergence
from kdbench.methods.dist.adapter import relations
from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.dml.adapter import mutual_loss
from kdbench.methods.fitnet.adapter import hint_loss
from kdbench.methods.fsp.adapter import flow_losses
from kdbench.methods.ft.adapter import factor_loss
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.lskd.adapter import standardized
from kdbench.methods.nkd.adapter import others_loss, target_loss
from kdbench.methods.nst.adapter import selectivity_loss
from kdbench.methods.ofd.adapter import overhaul_loss, partial_distance
from kdbench.methods.pkd.adapter import pearson_loss
from kdbench.methods.pkt.adapter import pkt_loss
from kdbench.methods.reviewkd.adapter import hcl
from kdbench.methods.rkd.adapter import relational_losses
from kdbench.methods.shared.matching import match
from kdbench.methods.simkd.adapter import feature_loss
from kdbench.methods.sp.adapter import similarity_loss
from kdbench.methods.tf_kd.adapter import virtual_loss

__all__ = [
    "ab", "at", "ban", "cc", "cwd", "dist", "dkd", "dml", "fitnet", "fsp", "ft", "kd", "lskd", "nkd", "nst", "ofd",
    "pkd", "pkt", "reviewkd", "rkd", "simkd", "sp", "tf_kd",
]  # fmt: skip


def kd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of softened (N, C) logits (Hinton, Vinyals, Dean 2015)."""
    return kd_loss(student, teacher, temperature)


def dkd(
    student: Tensor, teacher: Tensor, y: Tensor, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """``alpha`` TCKD + ``beta`` NCKD of (N, C) logits and (N,) classes (Zhao et al., CVPR 2022, equation 7)."""
    return dkd_loss(student, teacher, y, temperature, alpha, beta)


def nkd(
    student: Tensor,
    teacher: Tensor,
    y: Tensor,
    *,
    others_weight: float = 1.5,
    target_weight: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Target term and normalised non-target term of (N, C) logits and (N,) classes (Yang et al., ICCV 2023, eq. 6)."""
    target = target_weight * target_loss(student, teacher, y)
    return target + others_weight * others_loss(student, teacher, y, temperature)


def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    inter_weight: float = 2.0,
    intra_weight: float = 2.0,
    temperature: float = 4.0,
) -> Tensor:
    """Correlations by row and by class of (N, C) logits (Huang et al., NeurIPS 2022, equations 8 to 10)."""
    inter, intra = relations(student, teacher, temperature)
    return inter_weight * inter + intra_weight * intra


def lskd(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """:func:`kd` of standardized (N, C) logits (Sun et al., CVPR 2024, algorithm 1)."""
    return kd_loss(standardized(student), standardized(teacher), temperature)


def ban(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of (N, C) logits with the probabilities of the generation before (Furlanello et al., ICML 2018)."""
    return born_again_loss(student, teacher)


def dml(student: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """Mean KL from the other peers' (N, C) logits, constants (Zhang et al., CVPR 2018, equation 8)."""
    return mutual_loss(student, peers)


def tf_kd(student: Tensor, y: Tensor, *, temperature: float = 40.0, multiplier: float = 50.0) -> Tensor:
    """Divergence from a virtual teacher made of (N,) classes: the variant ``tf_kd-reg`` (Yuan et al., CVPR 2020)."""
    return multiplier * virtual_loss(student, y, temperature)


def at(student: Sequence[Tensor], teacher: Sequence[Tensor], *, power: float = 2.0) -> Tensor:
    """Attention of paired maps, summed over the stages; channels may differ (Zagoruyko & Komodakis, ICLR 2017)."""
    return _summed([attention_loss(s, t, power) for s, t in zip(student, teacher, strict=True)])


def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of a regressed student map and the teacher's, of one shape (Romero et al., ICLR 2015)."""
    return hint_loss(student, teacher)


def nst(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Discrepancy of paired maps, summed over the stages; channels may differ (Huang & Wang 2017)."""
    return _summed([selectivity_loss(s, t) for s, t in zip(student, teacher, strict=True)])


def ab(student: Sequence[Tensor], teacher: Sequence[Tensor], *, margin: float = 1.0) -> Tensor:
    """Boundaries of paired maps before the activation, of equal shapes (Heo et al., AAAI 2019)."""
    return _summed(boundary_losses(student, teacher, margin))


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Flow matrices of neighbouring maps, at least two a network, channels equal (Yim et al., CVPR 2017)."""
    return _summed(flow_losses(student, teacher))


def ft(student: Tensor, teacher: Tensor) -> Tensor:
    """Factors, (N, C, *size), of a translator and of a paraphraser (Kim, Park & Kwak, NeurIPS 2018)."""
    return factor_loss(student, teacher)


def ofd(student: Sequence[Tensor], teacher: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """Partial distances of maps before the activation, channels equal, with (C,) margins (Heo et al., ICCV 2019)."""
    matched = [match(s, t) for s, t in zip(student, teacher, strict=True)]
    distances = [partial_distance(s, t, margin) for (s, t), margin in zip(matched, margins, strict=True)]
    return overhaul_loss(distances, len(student[0]))


def reviewkd(student: Sequence[Tensor], teacher: Sequence[Tensor], *, levels: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Hierarchical context loss of fused maps (N, C, H, W) of equal shapes, summed (Chen et al., CVPR 2021)."""
    return _summed([hcl(s, t.detach(), levels) for s, t in zip(student, teacher, strict=True)])


def cwd(student: Sequence[Tensor], teacher: Sequence[Tensor], *, temperature: float = 1.0) -> Tensor:
    """Divergence of each channel's mass over cells, of levels or logit maps of equal shapes (Shu et al., ICCV 2021)."""
    return _summed([channel_divergence(s, t, temperature) for s, t in zip(student, teacher, strict=True)])


def pkd(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Half the squared gap of standardised pyramid levels, channels equal, summed (Cao et al., NeurIPS 2022)."""
    return _summed([pearson_loss(s, t) for s, t in zip(student, teacher, strict=True)])


def simkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the projected map and the teacher's last (Chen et al., CVPR 2022, equation 2)."""
    return feature_loss(student, teacher)


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity matrices of a batch's (N, ...) maps, of any two shapes (Tung & Mori, ICCV 2019)."""
    return similarity_loss(student, teacher)


def cc(student: Tensor, teacher: Tensor) -> Tensor:
    """Correlation of neighbouring rows of (N, D) embeddings of one width (Peng et al., ICCV 2019)."""
    return correlation_loss(student, teacher.detach())


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of affinities of (N, D) embeddings, the widths may differ (Passalis & Tefas, ECCV 2018)."""
    return pkt_loss(student, teacher)


def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Distances and angles of (N, D) embeddings, at least 2 rows, widths may differ (Park et al., CVPR 2019)."""
    distance, angle = relational_losses(student, teacher)
    return distance_weight * distance + angle_weight * angle


def _summed(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
