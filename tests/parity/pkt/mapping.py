"""pkt: affinities of pooled embeddings."""

from __future__ import annotations

from typing import Any

from imitated import imitated
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    return imitated("pkt", case, scalars, {"pkt_weight": 1.0})[0]
