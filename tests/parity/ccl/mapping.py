"""ccl: composed embeddings, contrasts, divergences, totals of student and compositions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.ccl.adapter import Composition, bridge, nce

GIVEN = ("student_*", "targets", "audio_feat", "image_feat", "comp_?.*")


def objective(gradient: str) -> str | tuple[str, ...]:
    if "comp_" not in gradient:
        return "loss_total_student"
    return "loss_total_student", f"loss_total_{gradient.removeprefix('grad.').partition('.')[0]}"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    logits, student, y = tensors["student_logits"], tensors["student_feat"], tensors["targets"]
    found = {"loss_cls_student": F.cross_entropy(logits, y)}
    total = found["loss_cls_student"]
    weight = 1.0 if scalars["loss_weight"] is None else scalars["loss_weight"]
    for m, name in (("a", "audio"), ("i", "image")):
        if f"{name}_feat" not in tensors:
            continue
        teacher, tau = tensors[f"{name}_feat"], scalars[f"tau_{name}"]
        rows = teacher.abs().sum(dim=1).nonzero().squeeze(1) if m == "a" else torch.arange(len(y))
        of = logits[rows], student[rows], teacher[rows], y[rows]
        composition = Composition(teacher.shape[1], logits.shape[1], scalars["normalize_inputs"])
        case.bind(composition, f"comp_{m}.")
        terms = bridge(composition, *of, tau, scalars["jsd_weight"])
        found[f"comp_{m}_feat"], found[f"comp_{m}_logits"] = composition(of[2], of[1])
        found[f"nce_student_to_{name}"] = nce(of[1], of[2], of[3], tau)
        found[f"loss_ct_student_{m}"], found[f"loss_jsd_{m}"] = terms.contrast, terms.divergence
        found[f"loss_cls_comp_{m}"], found[f"loss_ct_comp_{m}"] = terms.composed_task, terms.composed_contrast
        found[f"loss_total_comp_{m}"] = terms.composed_task + terms.composed_contrast + terms.composed_divergence
        total = total + weight * (terms.contrast + terms.divergence)
    return {**found, "loss_total_student": total}
