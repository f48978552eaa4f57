"""nst: channel kernels by stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.nst.adapter import selectivity_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = case.listed("input.feat_s."), case.listed("input.feat_t.")
    losses = [selectivity_loss(s, t) for s, t in zip(student, teacher, strict=True)]
    stages = {f"output.loss_kd.{i}": loss for i, loss in enumerate(losses)}
    return {**stages, **case.totals(scalars, torch.stack(losses).sum())}
