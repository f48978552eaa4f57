"""fitnet: regressor sized by the two maps, hint loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdbench.methods.fitnet.adapter import hint_loss
from kdbench.methods.shared.connectors import regressor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = tensors["input.feat_s.0"], tensors["input.feat_t.0"]
    module = case.bind(regressor(student.shape[1:], teacher.shape[1:], nn.ReLU()), "weight.reg.")
    regressed = module(student)
    return {"output.feat_s_regressed": regressed, **case.totals(scalars, hint_loss(regressed, teacher))}
