"""defeat: masks of every level, terms of the pyramid and of the proposals."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import crossed_heads, objects, proposing
from torch import Tensor

from kdbench.checks.stubs import EPOCHS, watched
from kdbench.contract import Out
from kdbench.methods.defeat import adapter

TERMS = {"neck": "loss_neck", "neck_back": "loss_neck_back", "head": "loss_head", "head_back": "loss_head_back"}


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    size = [float(scalars["strides"][0] * side) for side in student[0].shape[2:]]
    y = objects(tensors["input.boxes"], tensors["input.box_image"], [size] * scalars["batch"])
    hp = {f"{name}_weight": scalars[f"{name}_weight"] for name in TERMS}
    hp |= {"temperature": scalars["T"], "decay": "linear"}
    background = tensors["input.roi_logits_s"].shape[1] - 1
    labels = tensors["input.roi_labels"]
    labels = torch.where(labels == labels.max(), background, labels)
    own, theirs = (
        Out(None, dense=proposing(maps, scalars["strides"], tensors[f"input.roi_logits_{which}"], labels))
        for which, maps in (("s", student), ("t", teacher))
    )
    made = crossed_heads("defeat", hp, own, theirs, None, y)
    for i, conv in enumerate(made.method.adapt):
        case.bind(conv, f"weight.level{i}.adapt.")
    with watched(adapter, "own_cells") as calls:
        terms = made.terms(epoch=round((1 - scalars["decay"]) * EPOCHS))
    found = {"output.total": torch.stack(list(terms.values())).sum()}
    found |= {f"output.{stored}": terms[name] for name, stored in TERMS.items()}
    masks = enumerate(calls["own_cells"])
    return found | {f"output.mask.{i}": call.result.long() for i, call in masks}
