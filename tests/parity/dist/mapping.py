"""dist: correlations by row and by class."""

from __future__ import annotations

from typing import Any

from kdbench.checks.stubs import scored
from torch import Tensor

def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    kd, shares = scalars["kd_weight"], {"inter_weight": scalars["beta"], "intra_weight": scalars["gamma"]}
    hp = {"ce_weight": scalars["ce_weight"], "temperature": scalars["tau"]}
    bare = scored("dist", {**hp, "ce_weight": 1.0, **dict.fromkeys(shares, 1.0)}, tensors).terms()
    terms = scored("dist", {**hp, **shares}, tensors).terms()
    return {
        "output.loss_inter": bare["inter"],
        "output.loss_intra": bare["intra"],
        "output.loss_ce": bare["ce"],
        "output.loss_kd": terms["inter"] + terms["intra"],
        "output.total": scored("dist", {**hp, **{name: kd * share for name, share in shares.items()}}, tensors).total(),
    }
