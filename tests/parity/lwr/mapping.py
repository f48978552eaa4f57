"""lwr: the weighted sum with the soft labels of the last interval, its parts alone, and what is stored."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.contract import Out


def made(tensors: dict[str, Tensor], scalars: dict[str, Any], stored: str, **hp: Any) -> Assembled:
    """The method with logits stored under a name; epochs of a case count from 1."""
    values = {"temperature": scalars["T"], "interval": scalars["k"], "least": scalars["r"], "span": scalars["span"]}
    batch, rows = batch_of(tensors["target"], index=tensors["index"]), tensors[stored].detach()
    found = assembled("lwr", values | hp, batch, [Stub(Out(tensors["logits"]))], n_train=len(rows))
    method: Any = found.method
    method.old.rows.copy_(rows)
    return found


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    total = made(tensors, scalars, "label_logits").total(epoch=scalars["epoch"] - 1)
    alone = made(tensors, scalars, "label_logits", interval=1, span=1, least=0.0)
    ce, kd = alone.terms(epoch=0)["task"], alone.terms(epoch=1)["soft"]  # each has all the weight in its epoch
    running = made(tensors, scalars, "bank_before")
    running.terms()
    running.step(epoch=scalars["k"] - 1)  # the end of an interval
    return {"loss_total": total, "loss_ce": ce, "loss_kd": kd, "bank_after": running.method.old.rows}
