"""ft: paraphraser (frozen), translator, factors."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.ft.adapter import Paraphraser, Translator, factor_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = tensors["input.feat_s.0"], tensors["input.feat_t.0"]
    factors = int(scalars["k"] * teacher.shape[1])
    paraphraser = case.bind(Paraphraser(teacher.shape[1], factors), "weight.paraphraser.")
    names = {f"{layer}{i}.": f"{i}.{layer}." for layer in ("conv", "bn") for i in range(3)}
    translator = case.bind(Translator(student.shape[1], factors), "weight.translator.", names)
    factor_s, factor_t = translator(student), paraphraser.encode(teacher)
    return {
        "output.factor_s": factor_s,
        "output.factor_t": factor_t,
        "output.loss_rec": F.mse_loss(paraphraser(teacher), teacher),
        **case.totals(scalars, factor_loss(factor_s, factor_t)),
    }
