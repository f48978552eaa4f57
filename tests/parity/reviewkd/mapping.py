"""reviewkd: fusion outputs, stage losses, ramp, running statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.reviewkd import adapter
from kdbench.methods.reviewkd.adapter import ABF

SIDES = ("student", "teacher")


def made(case: Any, scalars: dict[str, Any], **weights: float) -> Assembled:
    """The method with the case's networks and fusion modules; the deepest stage is where it has pooled features."""
    tensors, nets = case.tensors, []
    for side in SIDES:
        *maps, last = case.listed(f"{side}_feat_")
        nets.append(Stub(Out(tensors[f"{side}_logits"], tuple(maps), tuple(maps), emb=last)))
    hp = {"warmup_epochs": scalars["warmup_epochs"], "mid_channels": scalars["mid_channels"]}
    hp |= {"levels": scalars["hcl_levels"], "temperature": scalars["kl_T"]}
    found = assembled("reviewkd", hp | weights, batch_of(tensors["labels"]), nets[:1], nets[1])
    if (mid := scalars["mid_channels"]) > nets[0].out.emb.shape[1]:  # wider than the method would make them
        widths = [(s.shape[1], t.shape[1]) for s, t in zip(*(case.listed(f"{q}_feat_") for q in SIDES), strict=True)]
        found.method.abfs = nn.ModuleList(ABF(s, mid, t, i < len(widths) - 1) for i, (s, t) in enumerate(widths))
    for i, abf in enumerate(found.method.abfs):
        case.bind(abf, f"abf{i}.")
    return found


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    weights = {name: scalars[name] for name in ("review_weight", "ce_weight")}
    weights["kl_weight"] = scalars["kl_weight"] if scalars.get("use_kl") else 0.0
    whole = made(case, scalars, **weights)
    with watched(adapter, "review", "hcl") as calls:
        terms = whole.terms(epoch=scalars["epoch"])
    stages = [call.result for call in calls["hcl"]]
    names = {"task": "loss_ce", "review": "loss_review", "kl": "loss_kl"}
    return {
        **{f"out_feat_{i}": output for i, output in enumerate(calls["review"][0].result)},
        **{f"hcl_{i}": stage for i, stage in enumerate(stages)},
        **{f"abf{i}.{name}_after": b for i, abf in enumerate(whole.method.abfs) for name, b in abf.named_buffers()},
        **{names[term]: value for term, value in terms.items()},
        "hcl_total": torch.stack(stages).sum(),
        "loss_total": torch.stack(list(terms.values())).sum(),
    }
