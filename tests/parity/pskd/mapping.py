"""pskd: targets between labels and stored predictions, and what is stored after the step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.pskd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    before = tensors["predictions_before"].detach()
    batch = batch_of(tensors["target"], index=tensors["index"])
    hp = {"alpha": scalars["alpha_T"]}
    made = assembled("pskd", hp, batch, [Stub(Out(tensors["logits"]))], n_train=len(before))
    method: Any = made.method
    method.past.rows.copy_(before)
    with watched(adapter, "refined") as calls:
        total = made.total(epoch=scalars["epoch"], epochs=scalars["end_epoch"])
    made.step()
    call = calls["refined"][0]
    return {
        "alpha_t": before.new_tensor(call.args[2]),
        "soft_target": call.result,
        "loss_total": total,
        "predictions_after": method.past.rows,
    }
