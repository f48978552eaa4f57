"""cwd: every map's divergence, with both conventions of its value; logit maps and pyramid levels alike."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import on_pyramids
from torch import Tensor

from kdbench.checks.stubs import watched
from kdbench.methods.cwd import adapter

VALUES = {"segmentation": "divergence", "mmrazor": "divergence", "distiller": "cross_entropy"}
FUNCTIONS = {"divergence": "channel_divergence", "cross_entropy": "channel_cross_entropy"}


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.map_{which}.") for which in "st")
    value = VALUES[scalars["variant"]]
    hp = {"channel_weight": scalars["weight"], "temperature": scalars["tau"], "value": value}
    made = on_pyramids("cwd", hp, student, teacher)
    for i, level in enumerate(made.method.levels):
        case.bind(level, f"weight.level{i}.align.")
    with watched(adapter, FUNCTIONS[value]) as calls:
        terms = made.terms()
    losses = {f"output.loss.{i}": call.result for i, call in enumerate(calls[FUNCTIONS[value]])}
    return {**losses, "output.total": torch.stack(list(terms.values())).sum()}
