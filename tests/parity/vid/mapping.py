"""vid: a Gaussian a stage, and how its variance starts."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered, results
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    starts: list[Tensor] = []

    def bind(method: Any) -> None:
        starts[:] = [gaussian.log_scale for gaussian in method.gaussians]
        for i, gaussian in enumerate(method.gaussians):
            case.bind(gaussian, f"weight.stage{i}.")

    own, start = {"information_weight": 1.0}, scalars["init_pred_var"]
    found, calls, _ = imitated("vid", case, scalars, own, bind, watch=["information_loss"], initial_variance=start)
    losses = numbered("output.loss_kd", results(calls["information_loss"]))
    return {**found, **losses, **numbered("output.log_scale_init", starts)}
