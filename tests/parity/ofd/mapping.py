"""ofd: margins, partial distances by stage, connectors."""

from __future__ import annotations

from typing import Any

from imitated import imitated, numbered, results
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    def bind(method: Any) -> None:
        for i, connect in enumerate(method.connectors):
            case.bind(connect, f"weight.conn{i}.")

    stages = range(len(case.listed("input.feat_t.")))
    norms = [tuple(tensors[f"input.teacher_bn{i}.{name}"] for name in ("weight", "bias")) for i in stages]
    watch, teacher = ["margins", "partial_distance"], {"norms": norms}
    found, calls, _ = imitated("ofd", case, scalars, {"feature_weight": 1.0}, bind, watch, teacher=teacher)
    sums = numbered("output.loss_stage_sum", results(calls["partial_distance"]))
    return {**found, **sums, **numbered("output.margin", results(calls["margins"]))}
