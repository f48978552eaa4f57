"""ffsd: one iteration of commons, fusion, leader and guides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.ffsd.adapter import (
    FFSD,
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


def objective(gradient: str) -> str | tuple[str, ...]:
    net = gradient.split(".")[1]
    if net.startswith("sd"):
        return f"out.{net}.feature", f"out.{net}.attention"
    return f"out.{'leader' if net == 'trans' else net}.total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    count, classes, channels = scalars["num_common"], scalars["num_classes"], scalars["stage_channels"]
    t, y, last = scalars["temperature"], tensors["labels"], channels[-1]
    hp = SimpleNamespace(
        diversity_weight=scalars["lambda_diversity"], fusion_weight=scalars["lambda_fusion"],
        guide_weight=scalars["lambda_self_distillation"], ramp_epochs=scalars["warmup_epochs"],
    )  # fmt: skip
    weights = FFSD.weights(SimpleNamespace(hp=hp), scalars["epoch"])
    nets = {
        name: Out(tensors[f"{name}.logits"], tuple(case.listed(f"{name}.stage")))
        for name in (*(f"common{i}" for i in range(count)), "leader")
    }
    rename = {f"block{k}.": f"blocks.{k}." for k in range(len(channels) - 1)}
    guides = {
        name: case.bind(Guide(channels), f"sd{of}.", rename)
        for name, of in [*((f"common{i}", i) for i in range(1, count)), ("leader", "_leader")]
    }
    commons, leader = [nets[f"common{i}"] for i in range(count)], nets["leader"]
    logits = [net.logits for net in commons]
    found: dict[str, Tensor] = {}
    for i, net in enumerate(commons):
        terms = {"ce": F.cross_entropy(net.logits, y), "mutual": mutual_loss(logits, i, t)}
        terms |= dict.fromkeys(("diversity", "selfdistill"), net.logits.new_zeros(()))
        if i:
            push = shifted(commons[i - 1].maps[-1])
            found[f"out.diversity_target.common{i}"] = push.map
            terms["diversity"] = weights.diversity * diversity_loss(net.maps[-1], push.target)
            targets = guides[f"common{i}"].targets(push.map)
            terms["selfdistill"] = weights.diversity * guided(net.maps, targets)
        found |= named(f"out.common{i}", terms)
    joined = torch.cat([net.maps[-1].detach() for net in commons], dim=1)
    fusion = case.bind(Fusion(count * last, last, classes), "fusion.")
    fused = fusion(joined)
    scores = fusion.classify(fused)
    found |= {"out.fusion.map": fused, "out.fusion.logits": scores}
    found |= named("out.fusion", {"ce": F.cross_entropy(scores, y), "ensemble": fusion_loss(scores, logits, t)})
    expanded = case.bind(Squeeze(last, count * last), "trans.")(leader.maps[-1])
    targets = guides["leader"].targets(fused.detach())
    maps = leader_losses(leader, expanded, fused, joined, targets, weights.fusion)
    terms = {"ce": F.cross_entropy(leader.logits, y), "ensemble": kd_loss(leader.logits, scores, t)}
    terms |= dict(zip(("fusion", "trans", "selfdistill"), maps.values(), strict=True))
    found |= {"out.leader.trans_map": expanded, **named("out.leader", terms)}
    for name, guide in guides.items():
        own = guide_losses(guide, nets[name].maps, weights.guide)
        of = "sd_leader" if name == "leader" else name.replace("common", "sd")
        found |= {f"out.{of}.feature": own["guide_maps"], f"out.{of}.attention": own["guide_attention"]}
    return found


def named(prefix: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms and their total."""
    terms = {**terms, "total": torch.stack(list(terms.values())).sum()}
    return {f"{prefix}.{name}": term for name, term in terms.items()}
