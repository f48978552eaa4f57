"""lskd: standardized logits in the divergences of kd and of dkd."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import scored, watched
from kdbench.methods.lskd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    hp = {"form": scalars["variant"], "temperature": scalars["T"], "warmup_epochs": scalars.get("warmup", 0)}
    hp |= {name: scalars[name] for name in ("ce_weight", "kd_weight", "alpha", "beta") if name in scalars}
    with watched(adapter, "standardized") as calls:
        epoch = scalars.get("epoch", 1) - 1  # the vectors count epochs from 1
        terms = scored("lskd", hp, tensors).terms(epoch=epoch)
    student, teacher = (call.result for call in calls["standardized"])
    return {
        "output.z_s_standardized": student,
        "output.z_t_standardized": teacher,
        "output.loss_ce": terms["ce"],
        "output.loss_kd": terms[scalars["variant"]],
        "output.total": terms["ce"] + terms[scalars["variant"]],
    }
