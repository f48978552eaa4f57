"""kd: weighted cross-entropy and softened divergence."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import scored


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    hp = {"ce_weight": scalars["gamma"], "kd_weight": scalars["alpha"], "temperature": scalars["kd_T"]}
    parts = scored("kd", {**hp, "ce_weight": 1.0, "kd_weight": 1.0}, tensors).terms()
    return {
        "output.loss_ce": parts["ce"],
        "output.loss_kl": parts["kd"],
        "output.loss_kd": parts["kd"].new_zeros(()),  # the method adds no term of its own
        "output.total": scored("kd", hp, tensors).total(),
    }
