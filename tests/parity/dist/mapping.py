"""dist: correlations by row and by class."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.dist.adapter import relations


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student = tensors["input.logits_s"]
    ce = F.cross_entropy(student, tensors["input.target"])
    inter, intra = relations(student, tensors["input.logits_t"], scalars["tau"])
    kd = scalars["beta"] * inter + scalars["gamma"] * intra
    return {
        "output.loss_inter": inter,
        "output.loss_intra": intra,
        "output.loss_ce": ce,
        "output.loss_kd": kd,
        "output.total": scalars["ce_weight"] * ce + scalars["kd_weight"] * kd,
    }
