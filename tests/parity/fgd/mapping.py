"""fgd: masks of every level, its unweighted terms, and the weighted sums."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import objects, on_pyramids
from torch import Tensor

from kdbench.checks.stubs import watched
from kdbench.methods.fgd import adapter

WEIGHTS = {"alpha": "inside", "beta": "outside", "gamma": "attention", "lambda": "relation"}
RENAMED = {
    "mask_s.": "context_s.mask.",
    "mask_t.": "context_t.mask.",
    "add_s.": "context_s.add.",
    "add_t.": "context_t.add.",
}
PARTS = {"loss_fg": "inside", "loss_bg": "outside", "loss_attention": "attention", "loss_relation": "relation"}


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (case.listed(f"input.feat_{which}.") for which in "st")
    y = objects(tensors["input.boxes"], tensors["input.box_image"], scalars["image_hw"])
    hp = {f"{word}_weight": scalars[stored] for stored, word in WEIGHTS.items()}
    made = on_pyramids("fgd", {"temperature": scalars["temp"], **hp}, student, teacher, y)
    parts: list[adapter.Focus] = []
    for i, level in enumerate(made.method.levels):
        case.bind(level, f"weight.level{i}.", RENAMED)
        level.register_forward_hook(lambda module, given, result: parts.append(result))
    with watched(adapter, "object_masks") as calls:
        terms = made.terms()
    found: dict[str, Tensor] = {"output.total": torch.stack(list(terms.values())).sum()}
    for i, (focus, call) in enumerate(zip(parts, calls["object_masks"], strict=True)):
        found |= {f"output.mask_{name}.{i}": mask for name, mask in zip(("fg", "bg"), call.result, strict=True)}
        found |= {f"output.{stored}.{i}": getattr(focus, part) for stored, part in PARTS.items()}
        weighted = [hp[f"{part}_weight"] * getattr(focus, part) for part in WEIGHTS.values()]
        found[f"output.loss_level.{i}"] = torch.stack(weighted).sum()
    return found
