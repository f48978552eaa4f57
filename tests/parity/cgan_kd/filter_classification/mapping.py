"""cgan_kd: the teacher's filter of the fakes of one class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.cgan_kd.sampling import below, class_losses

GIVEN = ("burnin_logits", "logits")


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    label = scalars["cond_class"]
    burn_in, losses = (class_losses(tensors[name].detach(), label) for name in GIVEN)
    cutoff = burn_in.quantile(scalars["q"])
    kept = below(losses, cutoff)
    predicted = tensors["logits"][kept].argmax(1)
    labels = predicted if scalars["adjust"] else torch.full_like(predicted, label)
    return {"burnin_ce": burn_in, "ce": losses, "cutoff": cutoff, "kept": kept, "out_labels": labels}
