"""reviewkd: fusion outputs, stage losses, ramp, running statistics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.reviewkd.adapter import ABF, ReviewKD, hcl, review


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = case.listed("student_feat_"), case.listed("teacher_feat_")
    abfs = [
        case.bind(ABF(s.shape[1], scalars["mid_channels"], t.shape[1], fuse=f"abf{i}.att.bias" in tensors), f"abf{i}.")
        for i, (s, t) in enumerate(zip(student, teacher, strict=True))
    ]
    outputs = review(abfs, student, teacher)
    stages = [hcl(o, t, scalars["hcl_levels"]) for o, t in zip(outputs, teacher, strict=True)]
    method = SimpleNamespace(hp=SimpleNamespace(warmup_epochs=scalars["warmup_epochs"]))
    losses = {
        "loss_review": scalars["review_weight"] * ReviewKD.ramp(method, scalars["epoch"]) * torch.stack(stages).sum(),
        "loss_ce": scalars["ce_weight"] * F.cross_entropy(tensors["student_logits"], tensors["labels"]),
    }
    if scalars.get("use_kl"):
        kl = kd_loss(tensors["student_logits"], tensors["teacher_logits"], scalars["kl_T"])
        losses["loss_kl"] = scalars["kl_weight"] * kl
    return {
        **{f"out_feat_{i}": output for i, output in enumerate(outputs)},
        **{f"hcl_{i}": stage for i, stage in enumerate(stages)},
        **{f"abf{i}.{name}_after": b for i, abf in enumerate(abfs) for name, b in abf.named_buffers()},
        **losses,
        "hcl_total": torch.stack(stages).sum(),
        "loss_total": torch.stack(list(losses.values())).sum(),
    }
