"""askd: the attention of the net's own blocks, and its distance from the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out
from kdbench.models.cbam import Attend


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    own: list[Tensor] = []
    theirs: list[Tensor] = []
    for block in range(scalars["blocks"]):
        x = tensors[f"student_map_{block}"]
        attend = Attend(x.shape[1], scalars["reduction"]).to(case.dtype)
        case.bind(attend, f"weight.block{block}.")
        after, channel, spatial = attend(x)
        found |= {f"map_after_{block}": after, f"channel_{block}": channel, f"spatial_{block}": spatial}
        own += [channel, spatial]
        theirs += [tensors[f"teacher_channel_{block}"], tensors[f"teacher_spatial_{block}"]]
    rows = len(own[0])
    nets = [Stub(Out(torch.zeros(rows, 10, dtype=case.dtype), attention=tuple(maps))) for maps in (own, theirs)]
    hp = {"attention_weight": scalars["distill_attn_param"]}
    terms = assembled("askd", hp, batch_of(torch.arange(rows)), nets[:1], nets[1]).terms()
    return {**found, "loss_total": terms["attention"]}
