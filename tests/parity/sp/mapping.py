"""sp: similarity matrices, of each map that is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.sp.adapter import similarity_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = case.listed("input.feat_s."), case.listed("input.feat_t.")
    losses = [similarity_loss(s, t) for s, t in zip(student, teacher, strict=True)]
    stages = {f"output.loss_kd.{i}": loss for i, loss in enumerate(losses)}
    return {**stages, **case.totals(scalars, torch.stack(losses).sum())}
