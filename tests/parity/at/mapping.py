"""at: attention maps by stage."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered, results
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found, calls, _ = imitated(
        "at", case, scalars, {"attention_weight": 1.0}, watch=["attention_loss"], power=scalars["p"]
    )
    return {**found, **numbered("output.loss_kd", results(calls["attention_loss"]))}
