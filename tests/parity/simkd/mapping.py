"""simkd: projector, comparison with the teacher's map, scores of its classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.simkd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    student, teacher = tensors["input.feat_s.0"], tensors["input.feat_t.0"]
    classes, width = tensors["weight.teacher_cls.weight"].shape
    nets = [
        Stub(Out(None, (x,), emb=x.flatten(2).mean(2)), classifier=nn.Linear(features, classes))
        for x, features in ((student, student.shape[1]), (teacher, width))
    ]
    y = tensors.get("input.target", torch.zeros(len(student), dtype=torch.long))
    hp = {"factor": scalars["factor"], "feature_weight": scalars["beta"]}
    made = assembled("simkd", hp, batch_of(y), nets[:1], nets[1])
    net: Any = made.method.deployed
    names = {f"{stored}{i}": f"{own}.{i}" for stored, own in (("conv", "convs"), ("bn", "bns")) for i in range(3)}
    case.bind(net.projector, "weight.proj.", names)
    case.bind(net.reused, "weight.teacher_cls.")
    with watched(adapter, "feature_loss", "pool") as calls:
        total = made.total()
    return {
        "output.feat_s_proj": calls["feature_loss"][0].args[0],
        "output.feat_t_aligned": calls["pool"][-1].result,
        "output.logits_s": net(made.batch).logits,
        "output.loss_kd": calls["feature_loss"][0].result,
        "output.total": total,
    }
