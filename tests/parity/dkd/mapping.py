"""dkd: target and non-target divergence under the warm-up."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.dkd.adapter import dkd_loss, others_divergence, target_divergence
from kdbench.methods.shared.logits import linear_ramp


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    given = [tensors[f"input.{name}"] for name in ("logits_s", "logits_t", "target")] + [float(scalars["T"])]
    ce = scalars["ce_weight"] * F.cross_entropy(given[0], given[2])
    ramp = linear_ramp(scalars["epoch"] - 1, scalars["warmup"])  # the vectors count epochs from 1
    kd = ramp * dkd_loss(*given, scalars["alpha"], scalars["beta"])
    return {
        "output.loss_tckd": target_divergence(*given),
        "output.loss_nckd": others_divergence(*given),
        "output.loss_ce": ce,
        "output.loss_kd": kd,
        "output.total": ce + kd,
    }
