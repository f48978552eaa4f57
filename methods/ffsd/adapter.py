"""Feature fusion and self-distillation of an online group (Li et al., TNNLS 2022, arXiv 2103.14473).

Commons teach one another and feed a fusion module; the leader learns from the fusion and alone is deployed. Shapes:
N rows, K classes, M commons, last maps (N, C, H, W), P = H W positions. "Own" modules are the fusion, the leader's
expansion and the guides: one guide for the leader and for every common but the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Method, Needs, NotApplicable, Out
from kdbench.methods.ffsd.losses import (
    LOWEST,
    diversity_loss,
    fusion_loss,
    guide_losses,
    guided,
    leader_losses,
    mutual_loss,
    shifted,
)
from kdbench.methods.ffsd.networks import Fusion, Guide, Squeeze
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.ramps import ramp

FUSION_DECAY = 1e-5
GUIDE_OPTIMIZER = {"name": "adam", "lr": 1e-3, "weight_decay": 1e-4}


class Weights(NamedTuple):
    """Ramped weights of an epoch: of the commons' diversity, the leader's imitation, the guides' training."""

    diversity: float
    fusion: float
    guide: float


class FFSD(Method):
    """Commons, fusion, leader and guides in one backward pass; students[0] is the leader."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            teachers=(),
            teacher=frozenset(),
            students=hp.commons + 1,
            student=frozenset({"logits", "maps"}),
            one_process=None,
        )

    def setup(self) -> None:
        task, hp = self.task, self.hp
        maps = task.probe(self.student).maps
        _refuse(maps)
        channels = [m.shape[1] for m in maps]
        self.fusion = Fusion(hp.commons * channels[-1], channels[-1], task.classes)
        self.expansion = Squeeze(channels[-1], hp.commons * channels[-1])
        self.guides = nn.ModuleList(Guide(channels) for _ in range(hp.commons))  # the leader's first
        if min(task.batch, task.n_train) == 1:
            warnings.warn("ffsd: batches of 1 row are normalised over positions alone", stacklevel=2)
        if task.classes == 1:
            warnings.warn("ffsd: with a single class only its terms of maps train anything", stacklevel=2)

    def groups(self) -> list[Group]:
        networks = [*self.students.parameters(), *self.expansion.parameters()]
        return [
            Group("networks", networks),
            Group("fusion", list(self.fusion.parameters()), {"weight_decay": FUSION_DECAY}),
            Group("guides", list(self.guides.parameters()), GUIDE_OPTIMIZER),
        ]

    def weights(self, epoch: int) -> Weights:
        """Ramped weights of an epoch counted from 0."""
        hp, share = self.hp, ramp("gaussian", epoch, self.hp.ramp_epochs)
        return Weights(share * hp.diversity_weight, share * hp.fusion_weight, share * hp.guide_weight)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        diversity = at.by_epoch(lambda epoch: self.weights(epoch).diversity)
        imitation = at.by_epoch(lambda epoch: self.weights(epoch).fusion)
        guidance = at.by_epoch(lambda epoch: self.weights(epoch).guide)
        leader, *commons = (net(batch) for net in self.students)
        joined = torch.cat([common.maps[-1].detach() for common in commons], dim=1)
        fused = self.fusion(joined)
        scores = self.fusion.classify(fused)
        terms = {"task": self.task.loss(leader, batch)}
        terms |= self._commons(commons, batch, diversity)
        terms |= self._fusion(scores, commons, batch)
        terms |= self._leader(leader, scores, fused, joined, imitation)
        pairs = zip(self.guides, [leader, *commons[1:]], strict=True)  # after every use of the guides' targets
        parts = [guide_losses(guide, net.maps, guidance) for guide, net in pairs]
        return terms | _summed(parts)

    def _commons(self, commons: Sequence[Out], batch: Batch, weight: float | Tensor) -> dict[str, Tensor]:
        logits = [common.logits for common in commons]
        parts = []
        for i, common in enumerate(commons):
            mutual = mutual_loss(logits, i, self.hp.temperature)
            parts.append({"commons_task": self.task.loss(common, batch), "commons_mutual": mutual})
            if i:
                push = shifted(commons[i - 1].maps[-1])
                guide: Any = self.guides[i]
                parts[i]["commons_diversity"] = weight * diversity_loss(common.maps[-1], push.target)
                parts[i]["commons_guided"] = weight * guided(common.maps, guide.targets(push.map))
        return _summed(parts)

    def _fusion(self, scores: Tensor, commons: Sequence[Out], batch: Batch) -> dict[str, Tensor]:
        kd = fusion_loss(scores, [common.logits for common in commons], self.hp.temperature)
        return {"fusion_task": self.task.loss(Out(scores), batch), "fusion_kd": kd}

    def _leader(
        self, leader: Out, scores: Tensor, fused: Tensor, joined: Tensor, weight: float | Tensor
    ) -> dict[str, Tensor]:
        guide: Any = self.guides[0]
        kd = kd_loss(leader.logits, scores, self.hp.temperature)
        targets = guide.targets(fused.detach())
        return {"kd": kd, **leader_losses(leader, self.expansion(leader.maps[-1]), fused, joined, targets, weight)}


def _refuse(maps: Sequence[Tensor]) -> None:
    """Raises NotApplicable where the maps of a network do not fit the guides."""
    if len(maps) < 2 or maps[0].ndim != 4:
        raise NotApplicable("it needs a student of at least 2 stages of two-dimensional maps")
    if maps[-1].shape[2] * maps[-1].shape[3] < LOWEST:
        raise NotApplicable(f"the last map has fewer than {LOWEST} positions, its weakest third would be empty")
    for i, (larger, smaller) in enumerate(pairwise(maps), start=1):
        sizes = [tuple(m.shape[2:]) for m in (larger, smaller)]
        if sizes[0] != tuple(2 * side for side in sizes[1]):
            shown = " and ".join("x".join(map(str, size)) for size in sizes)
            raise NotApplicable(f"each stage must halve the map; stages {i} and {i + 1} have {shown}")


def _summed(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.stack([part[name] for part in parts if name in part]).sum() for name in names}
