"""hsakd: rotations and joint labels, losses of the student and of the teacher's stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.hsakd.adapter import Scores, agreement, class_loss, joint_loss
from kdbench.methods.shared.heads import joint_labels
from kdbench.methods.shared.views import rotations


def objective(gradient: str) -> str:
    return "out.teacher_total" if gradient.startswith("grad_teacher.") else "out.total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["labels"]

    def stack(rows: Tensor) -> Tensor:  # the vectors' rows are image-major
        return rows.unflatten(0, (len(y), 4)).transpose(0, 1)

    student, teacher = (
        Scores(stack(tensors[f"{side}.logits"]), [stack(head) for head in case.listed(f"{side}.aux")])
        for side in ("student", "teacher")
    )
    cls, div = class_loss(student, y), agreement(student, teacher, scalars["temperature"])
    found = {}
    if "images" in tensors:
        found["out.rotated"] = rotations(tensors["images"], torch.Generator()).transpose(0, 1).flatten(0, 1)
    return found | {
        "out.joint_labels": joint_labels(y).T.flatten(),
        "out.cls": cls,
        "out.div": div,
        "out.total": cls + div,
        "out.teacher_total": joint_loss(teacher, y) + class_loss(teacher, y),
    }
