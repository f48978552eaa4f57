"""ft: paraphraser, trained in a phase of its own and then constant, translator, factors."""

from __future__ import annotations

from typing import Any

from imitated import imitated
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    names = {f"{layer}{i}.": f"{i}.{layer}." for layer in ("conv", "bn") for i in range(3)}

    def bind(method: Any) -> None:
        case.bind(method.paraphraser, "weight.paraphraser.")
        case.bind(method.translator, "weight.translator.", names)

    own, ratio = {"factor_weight": 1.0}, scalars["k"]
    found, calls, made = imitated("ft", case, scalars, own, bind, watch=["factor_loss"], factor_ratio=ratio)
    student, teacher = calls["factor_loss"][0].args
    return {
        **found,
        "output.factor_s": student,
        "output.factor_t": teacher,
        "output.loss_rec": made.total("paraphrase"),
    }
