"""hsakd: rotations and joint labels, losses of the student and of the teacher's stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, image_major, watched
from kdbench.contract import Out
from kdbench.methods.hsakd import adapter
from kdbench.methods.shared.views import ROTATIONS, rotations


def objective(gradient: str) -> str:
    return "out.teacher_total" if gradient.startswith("grad_teacher.") else "out.total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["labels"]
    nets = [Stub(Out(tensors[f"{q}.logits"]), tails=case.listed(f"{q}.aux")) for q in ("student", "teacher")]
    batch = batch_of(y.repeat(ROTATIONS), rows=image_major(len(y), ROTATIONS), views=ROTATIONS)
    hp = {"temperature": scalars["temperature"], "teacher_stage": "joint"}
    made = assembled("hsakd", hp, batch, nets[:1], nets[1])
    terms, found = made.terms(), {}
    with watched(adapter, "joint_labels") as calls:
        found["out.teacher_total"] = made.total("teacher_joint")
    if "images" in tensors:
        found["out.rotated"] = rotations(tensors["images"], torch.Generator()).transpose(0, 1).flatten(0, 1)
    return found | {
        "out.joint_labels": calls["joint_labels"][0].result.T.flatten(),
        "out.cls": terms["ce"],
        "out.div": terms["kd"],
        "out.total": terms["ce"] + terms["kd"],
    }
