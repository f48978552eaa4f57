"""hsakd, online: two peers, each with its labels and the other's scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, image_major
from kdbench.contract import Out


def objective(gradient: str) -> str:
    return "online_loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["target"]
    names = ("student", "teacher")
    peers = [Stub(Out(tensors[f"{peer}_logits"]), tails=case.listed(f"{peer}_ss_logits_", 1)) for peer in names]
    batch = batch_of(y.repeat(4), rows=image_major(len(y), 4), views=4)
    terms = assembled("hsakd", {"temperature": scalars["kd_T"], "form": "online"}, batch, peers).terms()
    cls, div = (
        torch.stack([value for term, value in terms.items() if term.endswith("_kd") == softened]).sum()
        for softened in (False, True)
    )
    total = torch.stack(list(terms.values())).sum()
    return {"online_loss_cls": cls, "online_loss_div": div, "online_loss_total": total}
