"""pkd: every level's loss through the method."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import on_pyramids
from torch import Tensor

from kdbench.checks.stubs import watched
from kdbench.methods.pkd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    resize = "student" if scalars["resize_student"] else "teacher"
    hp = {"pearson_weight": scalars["weight"], "levels": len(student), "resize": resize}
    with watched(adapter, "pearson_loss") as calls:
        terms = on_pyramids("pkd", hp, student, teacher).terms()
    losses = {f"output.loss.{i}": call.result for i, call in enumerate(calls["pearson_loss"])}
    return {**losses, "output.total": torch.stack(list(terms.values())).sum()}
