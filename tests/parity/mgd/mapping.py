"""mgd: masks, and what the generation makes of a masked map; the stored draws stand for the method's own."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from pyramids import on_pyramids
from torch import Tensor

from kdbench.checks.stubs import watched
from kdbench.methods.mgd import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    hp = {"generation_weight": scalars["alpha"], "masked": scalars["lambda_mask"]}
    made = on_pyramids("mgd", hp, student, teacher)
    for i, level in enumerate(made.method.levels):
        case.bind(level, f"weight.level{i}.")
    draws = patch.object(adapter.MGD, "uniform", side_effect=case.listed("input.uniform."))
    with draws, watched(adapter, "kept", "generation_loss") as calls:
        terms = made.terms()
    return {
        **{f"output.mask.{i}": call.result.long() for i, call in enumerate(calls["kept"])},
        **{f"output.loss.{i}": call.result for i, call in enumerate(calls["generation_loss"])},
        "output.total": torch.stack(list(terms.values())).sum(),
    }
