"""dlb: the batch before and what was said of it; and the very first step, without one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out
from kdbench.methods.dlb.adapter import LastBatch


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y, before = tensors["target"], tensors["target_prev"]
    n, m = len(y), len(before)
    net = Stub(Out(torch.cat([tensors["logits"], tensors["logits_prev"]])))
    batch = batch_of(y.repeat(2), rows=torch.arange(n).repeat(2), views=2)

    def terms(weight: float, first: bool = False) -> dict[str, Tensor]:
        hp = {"temperature": scalars["T"], "kd_weight": weight}
        made = assembled("dlb", hp, batch, [net])
        made.method.last = LastBatch(torch.zeros(1, dtype=torch.long), m, tensors["logits"].shape[1])
        if not first:
            made.method.last.keep(n + torch.arange(m), before, tensors["stored_logits"].detach())
        return made.terms()

    weighted = terms(scalars["alpha"])
    return {
        "loss_ce": weighted["ce"],
        "loss_kd": terms(1.0)["kd"],
        "loss_total": weighted["ce"] + weighted["kd"],
        "first_loss_total": sum(terms(scalars["alpha"], first=True).values()),
    }


def objective(gradient: str) -> str:
    return "first_loss_total" if gradient.startswith("first_") else "loss_total"
