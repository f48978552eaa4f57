"""cskd: the partners are the second view of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["target"].repeat(2)
    net = Stub(Out(torch.cat([tensors["logits"], tensors["logits_pair"]])))

    def terms(weight: float) -> dict[str, Tensor]:
        hp = {"temperature": scalars["T"], "class_weight": weight}
        return assembled("cskd", hp, batch_of(y, views=2), [net], train_labels=y).terms()

    weighted = terms(scalars["lamda"])
    total = torch.stack(list(weighted.values())).sum()
    return {"loss_ce": weighted["task"], "loss_cls": terms(1.0)["class"], "loss_total": total}
