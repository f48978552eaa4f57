"""tinymim: relations of one block's queries, keys and values, the student's in as many heads as the teacher's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.tinymim import adapter
from kdbench.models.vit import by_heads


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    nets = []
    for who, heads in (("student", 1), ("teacher", scalars["heads"])):  # the student's own heads do not matter
        qkv = F.linear(tensors[f"{who}_tokens"], *(tensors[f"weight.{who}.{part}"] for part in ("weight", "bias")))
        nets.append(Stub(Out(None, qkv=(by_heads(qkv, heads),))))
    rows = torch.arange(scalars["B"])
    made = assembled("tinymim", {}, batch_of(rows), nets[:1], nets[1], kind="representation")
    with watched(adapter, "relation") as calls:
        terms = made.terms()
    _, qk, _, vv = (call.result.exp() for call in calls["relation"])
    losses = {f"loss_{name}": value for name, value in terms.items()}
    return {"teacher_qk": qk, "teacher_vv": vv, **losses, "loss_total": torch.stack(list(terms.values())).sum()}
