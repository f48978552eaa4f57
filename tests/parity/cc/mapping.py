"""cc: two linear embeddings and neighbouring rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdbench.methods.cc.adapter import correlation_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    embedded = []
    for which in ("s", "t"):
        width, features = tensors[f"weight.embed_{which}.weight"].shape
        embed = case.bind(nn.Linear(features, width), f"weight.embed_{which}.")
        embedded.append(embed(tensors[f"input.emb_{which}"]))
    return case.totals(scalars, correlation_loss(*embedded))
