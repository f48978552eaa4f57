"""rkd: distances and angles of pooled embeddings."""

from __future__ import annotations

from typing import Any

from imitated import imitated
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    own = {"distance_weight": scalars["w_d"], "angle_weight": scalars["w_a"]}
    found, calls, _ = imitated("rkd", case, scalars, own, watch=["relational_losses"])
    distance, angle = calls["relational_losses"][0].result
    return {**found, "output.loss_distance": distance, "output.loss_angle": angle}
