"""ccl: composed embeddings, contrasts, divergences, totals of student and compositions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.ccl import adapter

GIVEN = ("student_*", "targets", "audio_feat", "image_feat", "comp_?.*")
ROLES = {"a": "audio", "i": "image"}


def objective(gradient: str) -> str:
    return "total"  # of the student and of the compositions: one backward pass gives each its own gradient


def made(case: Any, scalars: dict[str, Any], several: float) -> Assembled:
    """The method with the case's networks and compositions; the student reads an input of its own."""
    tensors, y = case.tensors, case.tensors["targets"]
    roles = {m: role for m, role in ROLES.items() if f"{role}_feat" in tensors}
    teachers = {role: Stub(Out(None, emb=tensors[f"{role}_feat"]), name=role) for role in roles.values()}
    hp = {"audio_tau": scalars["tau_audio"], "tau": scalars["tau_image"], "several_weight": several}
    hp |= {"divergence_weight": scalars["jsd_weight"], "normalise": scalars["normalize_inputs"]}
    there = {role: tensors[f"{role}_feat"].abs().sum(dim=1) > 0 for role in roles.values() if role == "audio"}
    batch = batch_of(y, inputs=("image", "audio"), present=there)
    shape = {"raw_shape": dict.fromkeys(("image", "audio"), (3, 8, 8)), "kind": "classification"}
    student = Stub(Out(tensors["student_logits"], emb=tensors["student_feat"]))
    found = assembled("ccl", hp, batch, [student], teachers, **shape)
    for m, composition in zip(roles, found.method.compositions, strict=True):
        case.bind(composition, f"comp_{m}.")
    return found


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    several = 1.0 if scalars["loss_weight"] is None else scalars["loss_weight"]
    whole = made(case, scalars, several)
    with watched(adapter, "bridge", "nce") as calls:
        terms = whole.terms()
    found = {"loss_cls_student": terms["task"], "total": torch.stack(list(terms.values())).sum()}
    found["loss_total_student"] = terms["task"] + terms["contrast"] + terms["divergence"]
    roles = [m for m, role in ROLES.items() if f"{role}_feat" in tensors]
    for m, call in zip(roles, calls["bridge"], strict=True):
        composition, _, student, teacher, *_ = call.args
        losses = call.result
        found[f"comp_{m}_feat"], found[f"comp_{m}_logits"] = composition(teacher, student)
        found |= {f"loss_ct_student_{m}": losses.contrast, f"loss_jsd_{m}": losses.divergence}
        found |= {f"loss_cls_comp_{m}": losses.composed_task, f"loss_ct_comp_{m}": losses.composed_contrast}
        found[f"loss_total_comp_{m}"] = losses.composed_task + losses.composed_contrast + losses.composed_divergence
        towards = [nce.result for nce in calls["nce"] if nce.args[0] is student and nce.args[1].equal(teacher)]
        found[f"nce_student_to_{ROLES[m]}"] = towards[0]
    return found
