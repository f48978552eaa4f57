"""cibhash: the loss of hashing tasks, as plain minimises it."""

from __future__ import annotations

from typing import Any

from hashed import own_loss, two_views
from torch import Tensor

from kdbench.contract import bits


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    views = tensors["logits_i"], tensors["logits_j"]
    with own_loss(scalars) as calls:
        total = two_views("plain", {}, views).total()
    terms = {"loss_contrast": calls["contrast"][0].result, "loss_kl": calls["divergence"][0].result}
    return {"code_i": bits(views[0]), "code_j": bits(views[1]), **terms, "loss_total": total}
