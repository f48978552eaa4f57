"""dmae: which patches are seen, the masked loss of the task, and tokens of the student beside the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import hidden_error, lowest, patched
from kdbench.methods.dmae.adapter import aligned


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    noise, side = tensors["noise"], scalars["side"]
    seen = lowest(noise, int(noise.shape[1] * (1 - scalars["mask_ratio"])))
    order = noise.argsort(dim=1, stable=True)
    kept = int(seen[0].sum())
    assert torch.equal(order[:, :kept].sort(dim=1).values, seen.nonzero()[:, 1].view(len(seen), -1))
    told = patched(tensors["image"], scalars["patch"])
    visible = seen.view(len(seen), 1, side, side)
    found = {"ids_keep": order[:, :kept], "ids_restore": order.argsort(dim=1), "mask": (~seen).to(case.dtype)}
    found["loss_rec"] = hidden_error(tensors["student_pred"], told, visible, scalars["norm_pix_loss"])
    for block in range(scalars["blocks"]):
        projection = case.bind(nn.Linear(scalars["Ds"], scalars["Dt"]), f"weight.proj{block}.")
        tokens = (tensors[f"{who}_tokens_{block}"] for who in ("student", "teacher"))
        found[f"loss_align_{block}"] = aligned(*tokens, projection, scalars["distance"].lower())
    terms = [value for name, value in found.items() if name.startswith("loss_")]
    return {**found, "loss_total": torch.stack(terms).sum()}
