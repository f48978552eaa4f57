"""fskd_lr: maps behind the bridges; which rows the teacher tells right is stored, the partners are the second view."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out
from kdbench.methods.fskd_lr import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y, stages = tensors["target"].repeat(2), range(scalars["stages"])
    nets = []
    for which in ("student", "teacher"):
        maps = [torch.cat([x, x.detach()]) for x in (tensors[f"{which}_feat_{stage}"] for stage in stages)]
        maps[-1] = torch.cat([tensors[f"{which}_feat_{stages[-1]}"], tensors[f"{which}_feat_pair"]])
        nets.append(Stub(Out(tensors[f"{which}_logits"].repeat(2, 1), tuple(maps))))
    right = tensors["correct"].to(case.dtype)

    def terms(point: float, cross: float, kd: float) -> dict[str, Tensor]:
        hp = {"point_weight": point, "cross_weight": cross, "kd_weight": kd, "temperature": scalars["kd_T"]}
        made = assembled("fskd_lr", hp, batch_of(y, views=2), nets[:1], nets[1], train_labels=y)
        made.method.bridges = nn.ModuleList(nn.Identity() for _ in stages)
        with patch.object(adapter, "told_right", lambda *_: right):
            return made.terms()

    alone = terms(1.0, 1.0, 1.0)
    weighted = terms(scalars["lambda_point"], scalars["lambda_cross"], float(scalars["logit_distill"]))
    return {
        "loss_ce": alone["task"],
        "loss_point": alone["point"],
        "loss_cross": alone["cross"],
        "loss_kl": alone["kd"],
        "loss_total": torch.stack(list(weighted.values())).sum(),
    }
