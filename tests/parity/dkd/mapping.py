"""dkd: target and non-target divergence under the warm-up."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import scored, watched
from kdbench.methods.dkd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    hp = {"temperature": scalars["T"], "warmup_epochs": scalars["warmup"]}
    hp |= {name: scalars[name] for name in ("ce_weight", "alpha", "beta")}
    with watched(adapter, "target_divergence", "others_divergence") as calls:
        terms = scored("dkd", hp, tensors).terms(epoch=scalars["epoch"] - 1)  # the vectors count epochs from 1
    return {
        "output.loss_tckd": calls["target_divergence"][0].result,
        "output.loss_nckd": calls["others_divergence"][0].result,
        "output.loss_ce": terms["ce"],
        "output.loss_kd": terms["dkd"],
        "output.total": terms["ce"] + terms["dkd"],
    }
