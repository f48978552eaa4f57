"""nkd: confidence-weighted target term and weighted non-target term."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import scored


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    hp = {"others_weight": scalars["gamma"], "temperature": scalars["T"], "ce_weight": 1.0, "target_weight": 1.0}
    terms = scored("nkd", hp, tensors).terms()
    return {
        "output.loss_target": terms["target"],
        "output.loss_nontarget_weighted": terms["others"],
        "output.loss_kd": terms["target"] + terms["others"],
        "output.loss_ce": terms["ce"],
        "output.total": torch.stack(list(terms.values())).sum(),
    }
