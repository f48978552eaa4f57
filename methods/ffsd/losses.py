"""Losses of FFSD, on the maps and logits of commons, fusion and leader; the paper's equations as the code has them.

Shapes: N rows, K classes, M commons, last maps (N, C, H, W), P = H W positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import Out
from kdbench.methods.kd.adapter import kd_loss

LOWEST = 3
"""One part in this many of an attention map counts as weak."""


def attention(x: Tensor) -> Tensor:
    """(N, 1, H, W) mean over channels of the squared map."""
    return x.square().mean(dim=1, keepdim=True)


def flat_unit(x: Tensor) -> Tensor:
    """(N, all) each row of unit length; a norm below 1e-12 counts as 1e-12."""
    return F.normalize(x.flatten(1), dim=1)


def match(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of the flattened unit rows over all their elements, 0-d."""
    return F.mse_loss(flat_unit(x), flat_unit(y))


class Shifted(NamedTuple):
    """What a common is pushed towards.

    Attributes:
        target: (N, P) attention with its strong positions replaced.
        map: (N, C, H, W) the map moved by the same shift.
    """

    target: Tensor
    map: Tensor


def shifted(last: Tensor) -> Shifted:
    """The last map of the previous common, strong positions weakened and weak ones strengthened, constants.

    Raw norm and normalised values are mixed as in the official code.
    """
    last = last.detach()
    raw = attention(last)
    norm, a = raw.flatten(1).norm(dim=1, keepdim=True), flat_unit(raw)
    place = a.shape[1] // LOWEST - 1
    threshold = a.sort(dim=1).values[:, place : place + 1]
    target = (norm / 2 - a) * torch.sign(a - threshold) + norm / 2
    shift = (target - a) * norm / last.shape[1]
    return Shifted(target, last + shift.view_as(raw))


def guided(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Attention of the stages but the last against the guide's, summed, 0-d."""
    return sum((match(attention(m), attention(t)) for m, t in zip(maps, targets, strict=False)), maps[0].new_zeros(()))


def mutual_loss(logits: Sequence[Tensor], i: int, temperature: float) -> Tensor:
    """Softened divergence of common ``i`` from each other common, their mean, 0-d."""
    others = [kd_loss(logits[i], z, temperature) for j, z in enumerate(logits) if j != i]
    return torch.stack(others).mean()


def diversity_loss(last: Tensor, target: Tensor) -> Tensor:
    """Squared error of a common's normalised attention from the (N, P) shifted one, mean over both axes."""
    return F.mse_loss(flat_unit(attention(last)), target)


def fusion_loss(fused: Tensor, logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Softened divergence of the fusion's logits from the mean of the commons', 0-d."""
    return kd_loss(fused, torch.stack(list(logits)).mean(dim=0), temperature)


def leader_losses(
    out: Out, expanded: Tensor, fused: Tensor, joined: Tensor, targets: Sequence[Tensor], weight: float | Tensor
) -> dict[str, Tensor]:
    """The leader's imitation of maps, each term 0-d.

    Args:
        out: the leader's output.
        expanded: (N, M C, H, W) its last map after the expansion.
        fused, joined: the fusion's map and the commons' concatenated maps, constants.
        targets: what the leader's guide makes of the fused map.
    """
    last = out.maps[-1]
    return {
        "fused_map": weight * match(attention(last), attention(fused.detach())),
        "joined_maps": weight * match(attention(expanded), attention(joined.detach())),
        "guided": weight * guided(out.maps, targets),
    }


def guide_losses(guide: nn.Module, maps: Sequence[Tensor], weight: float | Tensor) -> dict[str, Tensor]:
    """Training of a guide on its network's own maps, constants; batch statistics; each term 0-d."""
    maps = [m.detach() for m in maps]
    made = guide(maps[-1])
    pairs = list(zip(made, maps, strict=False))
    return {
        "guide_maps": weight * torch.stack([match(s, m) for s, m in pairs]).sum(),
        "guide_attention": weight * torch.stack([match(attention(s), attention(m)) for s, m in pairs]).sum(),
    }
