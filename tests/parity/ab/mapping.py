"""ab: boundary losses by stage; connected student maps are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.ab.adapter import boundary_losses


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    losses = boundary_losses(case.listed("input.feat_s."), case.listed("input.feat_t."), scalars["margin"])
    stages = {f"output.loss_kd.{i}": loss for i, loss in enumerate(losses)}
    return {**stages, **case.totals(scalars, torch.stack(losses).sum())}
