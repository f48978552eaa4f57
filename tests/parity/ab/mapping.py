"""ab: boundary losses by stage in the first phase, the rest in the second; connected student maps are given."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    own, stages = {"boundary_weight": 1.0}, ("initialise", "distill")
    found, calls, _ = imitated(
        "ab", case, scalars, own, watch=["boundary_losses"], stages=stages, margin=scalars["margin"]
    )
    return {**found, **numbered("output.loss_kd", calls["boundary_losses"][0].result)}
