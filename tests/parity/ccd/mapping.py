"""ccd: the loss on interleaved views, the KD+JDA baseline, and JDA's pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.ccd.adapter import confidence, soft_losses
from kdbench.methods.shared.jda import OPERATIONS, Chain


def objective(gradient: str) -> str:
    return "out.kd_jda_step" if gradient.startswith("grad_kd_jda") else "out.ccd_step"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher = (
        tensors[f"{net}.logits"].unflatten(0, (-1, 2)).transpose(0, 1) for net in ("student", "teacher")
    )
    alpha, t = scalars["alpha"], scalars["temperature"]
    beta = 1 - alpha if scalars["beta"] is None else scalars["beta"]
    hard = F.cross_entropy(tensors["student.logits"], tensors["labels"]) if "labels" in tensors else None
    plain, augmented = soft_losses(student, teacher, t)
    soft = (plain + augmented) / 2
    baseline = sum(soft_losses(student, teacher, t, confident=False)) / 2

    def total(of: Tensor) -> Tensor:  # at alpha 0 or without labels the authors return the divergence bare
        return of if hard is None or not alpha else alpha * hard + beta * t**2 * of

    return {
        "out.confidence": confidence(*teacher),
        "out.soft_original": plain,
        "out.soft_augmented": augmented,
        "out.soft": soft,
        **({} if hard is None else {"out.hard": hard}),
        "out.ccd": total(soft),
        "out.ccd_step": scalars["kd_weight"] * total(soft),
        "out.kd_jda_step": scalars["kd_weight"] * total(baseline),
        **(pixels(tensors, scalars) if "jda.image" in tensors else {}),
    }


def pixels(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Tensor]:
    ops = tuple(zip(scalars["jda_ops"], scalars["jda_magnitudes"], strict=True))
    image, sign = tensors["jda.image"].permute(2, 0, 1)[None], tensors["jda.sign"]
    single = torch.cat([OPERATIONS[name](image, m, s[None]) for (name, m), s in zip(ops, sign, strict=True)])
    chained = Chain(ops, scalars["jda_p"]).apply(image, tensors["jda.uniform"][None], sign[None])
    return {"out.jda.single": single.permute(0, 2, 3, 1), "out.jda.chain": chained[0].permute(1, 2, 0)}
