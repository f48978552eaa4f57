"""fsp: flow matrices of neighbouring maps in the first phase, the rest in the second."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    own, stages = {"flow_weight": 1.0}, ("initialise", "distill")
    found, calls, _ = imitated("fsp", case, scalars, own, watch=["flow_losses"], stages=stages)
    return {**found, **numbered("output.loss_kd", calls["flow_losses"][-1].result)}  # the first call checks the widths
