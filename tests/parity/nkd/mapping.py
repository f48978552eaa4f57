"""nkd: confidence-weighted target term and weighted non-target term."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.nkd.adapter import others_loss, target_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher, y = (tensors[f"input.{name}"] for name in ("logits_s", "logits_t", "target"))
    ce, target = F.cross_entropy(student, y), target_loss(student, teacher, y)
    others = scalars["gamma"] * others_loss(student, teacher, y, scalars["T"])
    return {
        "output.loss_target": target,
        "output.loss_nontarget_weighted": others,
        "output.loss_kd": target + others,
        "output.loss_ce": ce,
        "output.total": ce + target + others,
    }
