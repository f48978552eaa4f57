"""rkd: distances and angles of pooled embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.rkd.adapter import relational_losses


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    distance, angle = relational_losses(tensors["input.emb_s"], tensors["input.emb_t"])
    return {
        "output.loss_distance": distance,
        "output.loss_angle": angle,
        **case.totals(scalars, scalars["w_d"] * distance + scalars["w_a"] * angle),
    }
