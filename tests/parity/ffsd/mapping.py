"""ffsd: one iteration of commons, fusion, leader and guides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.ffsd import adapter

HP = {
    "commons": "num_common", "temperature": "temperature", "diversity_weight": "lambda_diversity",
    "fusion_weight": "lambda_fusion", "guide_weight": "lambda_self_distillation", "ramp_epochs": "warmup_epochs",
}  # fmt: skip
COMMON = {"ce": "commons_task", "mutual": "commons_mutual"}
SHIFTED = {"diversity": "commons_diversity", "selfdistill": "commons_guided"}
FUSION = {"ce": "fusion_task", "ensemble": "fusion_kd"}
LEADER = {"ce": "task", "ensemble": "kd", "fusion": "fused_map", "trans": "joined_maps", "selfdistill": "guided"}
GUIDE = {"feature": "guide_maps", "attention": "guide_attention"}


def objective(gradient: str) -> str:
    return "total"  # of all networks: one backward pass gives each its own gradient


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    names = ["leader", *(f"common{i}" for i in range(scalars["num_common"]))]
    nets = [Stub(Out(tensors[f"{name}.logits"], tuple(case.listed(f"{name}.stage")))) for name in names]
    hp = {name: scalars[stored] for name, stored in HP.items()}
    made = assembled("ffsd", hp, batch_of(tensors["labels"]), nets)
    guides = {"sd_leader": made.method.guides[0]}
    guides |= {f"sd{i}": guide for i, guide in enumerate(made.method.guides[1:], 1)}
    rename = {f"block{k}.": f"blocks.{k}." for k in range(len(scalars["stage_channels"]) - 1)}
    for name, guide in guides.items():
        case.bind(guide, f"{name}.", rename)
    case.bind(made.method.fusion, "fusion.")
    case.bind(made.method.expansion, "trans.")
    with watched(adapter, "shifted", "fusion_loss", "leader_losses", "_summed") as calls:
        terms = made.terms(epoch=scalars["epoch"] - 1)  # the vectors count epochs from 1
    zero = terms["task"].new_zeros(())
    of_commons, of_guides = (call.args[0] for call in calls["_summed"])
    found = {"total": torch.stack(list(terms.values())).sum()}
    for i, own in enumerate(of_commons):
        found |= named(f"out.common{i}", {name: own.get(term, zero) for name, term in (COMMON | SHIFTED).items()})
    for name, own in zip(guides, of_guides, strict=True):
        found |= {f"out.{name}.{kind}": own[term] for kind, term in GUIDE.items()}
    for i, call in enumerate(calls["shifted"], 1):
        found[f"out.diversity_target.common{i}"] = call.result.map
    _, expanded, fused, *_ = calls["leader_losses"][0].args
    found |= {"out.fusion.map": fused, "out.leader.trans_map": expanded}
    found["out.fusion.logits"] = calls["fusion_loss"][0].args[0]
    found |= named("out.fusion", {name: terms[term] for name, term in FUSION.items()})
    return found | named("out.leader", {name: terms[term] for name, term in LEADER.items()})


def named(prefix: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms and their total."""
    terms = {**terms, "total": torch.stack(list(terms.values())).sum()}
    return {f"{prefix}.{name}": term for name, term in terms.items()}
