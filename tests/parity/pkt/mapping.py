"""pkt: affinities of pooled embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.pkt.adapter import pkt_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    return case.totals(scalars, pkt_loss(tensors["input.emb_s"], tensors["input.emb_t"]))
