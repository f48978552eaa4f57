"""mlkd: the three levels in the form of the published code."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.mlkd.adapter import correlation_losses, masks, prediction_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = ([tensors[f"input.logits_{q}_{view}"] for view in ("weak", "strong")] for q in "st")
    temperatures = (scalars["T"], *scalars["extra_T"])
    rows, classes = masks(teacher[0], official_code=True)
    by_class, by_row = correlation_losses(student[0], teacher[0], temperatures, rows, classes)
    w = scalars["kd_weight"]
    found = {
        "loss_ce": scalars["ce_weight"] * sum(F.cross_entropy(z, tensors["input.target"]) for z in student),
        "loss_kd": w * prediction_loss(student, teacher, temperatures, rows, official_code=True),
        "loss_cc": w * by_class,
        "loss_bc": w * by_row,
    }
    return {**{f"output.{name}": value for name, value in found.items()}, "output.total": sum(found.values())}
