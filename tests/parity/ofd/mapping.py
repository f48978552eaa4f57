"""ofd: margins, partial distances by stage, connectors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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
    rows = len(case.listed("input.feat_s.")[0])
    return {**found, **case.totals(scalars, overhaul_loss(distances, rows))}
