"""simkd: projector, comparison with the teacher's map, scores of its classifier."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.shared.matching import pool
from kdbench.methods.simkd.adapter import Projector, feature_loss


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = tensors["input.feat_s.0"], tensors["input.feat_t.0"]
    names = {f"{stored}{i}": f"{own}.{i}" for stored, own in (("conv", "convs"), ("bn", "bns")) for i in range(3)}
    projector = Projector(student.shape[1:], teacher.shape[1:], scalars["factor"])
    projected = case.bind(projector, "weight.proj.", names)(student)
    classifier = (tensors[f"weight.teacher_cls.{name}"] for name in ("weight", "bias"))
    loss = feature_loss(projected, teacher)
    return {
        "output.feat_s_proj": projected,
        "output.feat_t_aligned": pool(teacher, projected.shape[2:]),
        "output.logits_s": F.linear(projected.mean((2, 3)), *classifier),
        "output.loss_kd": loss,
        "output.total": scalars["beta"] * loss,
    }
