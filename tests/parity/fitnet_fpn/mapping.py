"""fitnet on pyramids: every level's hint through the method."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import on_pyramids
from torch import Tensor

from kdbench.checks.stubs import watched
from kdbench.methods.fitnet import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    made = on_pyramids("fitnet", {"hint_stage": 0, "hint_weight": scalars["weight"]}, student, teacher)
    for i, level in enumerate(made.method.levels):
        case.bind(level, f"weight.level{i}.adapt.")
    with watched(adapter, "hint_loss") as calls:
        terms = made.terms()
    losses = {f"output.loss.{i}": call.result for i, call in enumerate(calls["hint_loss"])}
    return {**losses, "output.total": torch.stack(list(terms.values())).sum()}
