"""sskd: rows kept, four terms, the teacher head's own stage."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.sskd.adapter import ProjectionHead, head_loss, kept, kept_divergence, own_image, similarity, turned


def objective(gradient: str) -> str:
    return "out.teacher_ssp" if gradient.startswith("grad_teacher_ssp.") else "out.total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y, images = tensors["labels"], len(tensors["labels"])
    given = (f"{side}.{kind}" for side in ("student", "teacher") for kind in ("logits", "feat"))
    stacks = {name: tensors[name].unflatten(0, (images, 4)).transpose(0, 1) for name in given}
    likeness, logits = {}, {}
    for side in ("student", "teacher"):
        head = case.bind(ProjectionHead(tensors[f"{side}.feat"].shape[1]), f"{side}.proj.")
        likeness[side] = similarity(head(stacks[f"{side}.feat"]))
        logits[side] = stacks[f"{side}.logits"]
    student, teacher = logits["student"], logits["teacher"]
    own = own_image(images, y.device)
    keep_tf = kept(turned(teacher), y.repeat_interleave(3), scalars["ratio_tf"])
    keep_ss = kept(likeness["teacher"], own, scalars["ratio_ss"])
    terms = {
        "ce": F.cross_entropy(student[0], y),
        "kd": kd_loss(student[0], teacher[0], scalars["kd_T"]),
        "tf": kept_divergence(turned(student), turned(teacher), scalars["tf_T"], keep_tf),
        "ss": kept_divergence(likeness["student"], likeness["teacher"], scalars["ss_T"], keep_ss),
    }
    return {
        **{f"out.{side}_similarity": value for side, value in likeness.items()},
        "out.keep_tf": keep_tf.nonzero().squeeze(1),
        "out.keep_ss": keep_ss.nonzero().squeeze(1),
        **{f"out.{name}": value for name, value in terms.items()},
        "out.total": torch.stack([scalars[f"{name}_weight"] * value for name, value in terms.items()]).sum(),
        "out.teacher_ssp": head_loss(likeness["teacher"]),
    }
