"""nst: channel kernels by stage."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered, results
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found, calls, _ = imitated("nst", case, scalars, {"selectivity_weight": 1.0}, watch=["selectivity_loss"])
    return {**found, **numbered("output.loss_kd", results(calls["selectivity_loss"]))}
