"""vid: a Gaussian a stage, and how its variance starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.vid.adapter import Gaussian, information_loss, raw_scale


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    losses, found = [], {}
    for i, (s, t) in enumerate(zip(case.listed("input.feat_s."), case.listed("input.feat_t."), strict=True)):
        start = raw_scale(scalars["init_pred_var"])
        found[f"output.log_scale_init.{i}"] = torch.full((t.shape[1],), start, dtype=case.dtype)
        gaussian = case.bind(Gaussian(s.shape[1], t.shape[1], scalars["init_pred_var"]), f"weight.stage{i}.")
        losses.append(information_loss(gaussian, s, t))
        found[f"output.loss_kd.{i}"] = losses[-1]
    return {**found, **case.totals(scalars, torch.stack(losses).sum())}
