"""at: attention maps by stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.at.adapter import attention_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = case.listed("input.feat_s."), case.listed("input.feat_t.")
    losses = [attention_loss(s, t, scalars["p"]) for s, t in zip(student, teacher, strict=True)]
    stages = {f"output.loss_kd.{i}": loss for i, loss in enumerate(losses)}
    return {**stages, **case.totals(scalars, torch.stack(losses).sum())}
