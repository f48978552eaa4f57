"""isrd: the picture rebuilt from the first map, beside the softened divergence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.isrd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    picture, share = tensors["image_large"], scalars["alpha"]
    hp = {"eta": scalars["eta"], "ce_weight": 1 - share, "kd_weight": share, "temperature": scalars["kd_T"]}
    student = Stub(Out(tensors["student_logits"], (tensors["student_feat"],)))
    batch = batch_of(tensors["target"], pictures=picture)
    made = assembled("isrd", hp, batch, [student], Stub(Out(tensors["teacher_logits"])), pixels=picture)
    case.bind(made.method.rebuild, "weight.")
    with watched(adapter, "rebuilt_apart") as calls:
        terms = made.terms()
    call = calls["rebuilt_apart"][0]
    return {
        "image_sr": call.args[0],
        "loss_kd": terms["task"] + terms["kd"],
        "loss_sr": call.result,
        "loss_total": torch.stack(list(terms.values())).sum(),
    }
