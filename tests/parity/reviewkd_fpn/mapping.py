"""reviewkd on pyramids: fused maps, every level's loss, running statistics."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import on_pyramids
from torch import Tensor, nn

from kdbench.checks.stubs import watched
from kdbench.methods.reviewkd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    mid = scalars["mid_channels"]
    hp = {"student_features": "fpn", "teacher_features": "fpn", "warmup_epochs": 0, "mid_channels": mid}
    hp |= {"review_weight": scalars["review_weight"], "levels": scalars["hcl_levels"]}
    made = on_pyramids("reviewkd", hp, student, teacher)
    if mid > student[-1].shape[1]:  # wider than the method would make them
        last, widths = len(student) - 1, [(s.shape[1], t.shape[1]) for s, t in zip(student, teacher, strict=True)]
        made.method.abfs = nn.ModuleList(adapter.ABF(s, mid, t, i < last) for i, (s, t) in enumerate(widths))
    for i, abf in enumerate(made.method.abfs):
        case.bind(abf, f"weight.abf{i}.")
    with watched(adapter, "review", "hcl") as calls:
        terms = made.terms()
    buffers = ((i, name, held) for i, abf in enumerate(made.method.abfs) for name, held in abf.named_buffers())
    return {
        **{f"output.fused.{i}": fused for i, fused in enumerate(calls["review"][0].result)},
        **{f"output.loss_hcl.{i}": call.result for i, call in enumerate(calls["hcl"])},
        **{f"output.abf{i}.{name}": held for i, name, held in buffers},
        "output.total": torch.stack(list(terms.values())).sum(),
    }
