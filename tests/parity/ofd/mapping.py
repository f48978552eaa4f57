"""ofd: margins, partial distances by stage, connectors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.ofd.adapter import connector, margins, overhaul_loss, partial_distance
from kdbench.methods.shared.matching import match


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found, distances = {}, []
    stages = zip(case.listed("input.feat_s."), case.listed("input.feat_t."), strict=True)
    for i, (student, teacher) in enumerate(stages):
        connect = case.bind(connector(student.shape[1], teacher.shape[1]), f"weight.conn{i}.")
        margin = margins(tensors[f"input.teacher_bn{i}.weight"], tensors[f"input.teacher_bn{i}.bias"])
        student, teacher = match(student, teacher)
        distances.append(partial_distance(connect(student), teacher, margin))
        found |= {f"output.margin.{i}": margin, f"output.loss_stage_sum.{i}": distances[-1]}
    ce = F.cross_entropy(tensors["input.logits_s"], tensors["input.target"])
    kl = kd_loss(tensors["input.logits_s"], tensors["input.logits_t"], scalars["kd_T"])
    kd = overhaul_loss(distances, len(tensors["input.target"]))
    weights = torch.tensor([scalars[name] for name in ("gamma", "alpha", "beta")], dtype=case.dtype)
    found |= {"output.loss_ce": ce, "output.loss_kl": kl, "output.loss_kd": kd}
    return {**found, "output.total": weights @ torch.stack([ce, kl, kd])}
