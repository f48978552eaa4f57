"""fitnet: regressor sized by the two maps, hint loss."""

from __future__ import annotations

from typing import Any

from imitated import imitated
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    def bind(method: Any) -> None:
        case.bind(method.regressor, "weight.reg.")

    found, calls, _ = imitated("fitnet", case, scalars, {"hint_weight": 1.0}, bind, watch=["hint_loss"], hint_stage=1)
    return {**found, "output.feat_s_regressed": calls["hint_loss"][0].args[0]}
