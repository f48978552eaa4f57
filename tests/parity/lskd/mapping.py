"""lskd: standardized logits in the divergences of kd and of dkd."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.lskd.adapter import standardized
from kdbench.methods.shared.logits import linear_ramp


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["input.target"]
    student, teacher = (standardized(tensors[f"input.logits_{q}"]) for q in "st")
    if scalars["variant"] == "dkd":
        ramp = linear_ramp(scalars["epoch"] - 1, scalars["warmup"])  # the vectors count epochs from 1
        divergence = ramp * dkd_loss(student, teacher, y, scalars["T"], scalars["alpha"], scalars["beta"])
    else:
        divergence = kd_loss(student, teacher, scalars["T"])
    ce = scalars["ce_weight"] * F.cross_entropy(tensors["input.logits_s"], y)
    kd = scalars["kd_weight"] * divergence
    found = {"output.z_s_standardized": student, "output.z_t_standardized": teacher}
    return {**found, "output.loss_ce": ce, "output.loss_kd": kd, "output.total": ce + kd}
