"""ccd: the loss on interleaved views, the KD+JDA baseline, and JDA's pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, image_major, watched
from kdbench.contract import Out
from kdbench.methods.ccd import adapter
from kdbench.methods.shared.jda import OPERATIONS, Chain


def objective(gradient: str) -> str:
    return "out.kd_jda_step" if gradient.startswith("grad_kd_jda") else "out.ccd_step"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    nets = [Stub(Out(tensors[f"{net}.logits"])) for net in ("student", "teacher")]
    rows = image_major(len(tensors["student.logits"]) // 2, 2)
    y = tensors.get("labels", torch.zeros(len(rows), dtype=torch.long))
    batch = batch_of(y[rows], rows=rows, views=2)
    hp = {"temperature": scalars["temperature"], "ce_weight": scalars["alpha"], "soft_weight": scalars["beta"]}
    if "labels" not in tensors or not scalars["alpha"]:  # the authors return the divergence bare then
        hp |= {"ce_weight": 0.0, "soft_weight": scalars["temperature"] ** -2}
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8).expand(len(rows), -1, -1, -1)
    task = {"pixels": pixels, "classes": len(tensors["student.logits"].T)}

    def terms(**given: Any) -> dict[str, Tensor]:
        return assembled("ccd", hp | given, batch, nets[:1], nets[1], **task).terms()

    with watched(adapter, "confidence", "soft_losses") as calls:
        single = torch.stack(list(terms(kd_weight=1.0).values())).sum()
    plain, augmented = calls["soft_losses"][0].result
    bare = terms(kd_weight=1.0, ce_weight=1.0)
    return {
        "out.confidence": calls["confidence"][0].result,
        "out.soft_original": plain,
        "out.soft_augmented": augmented,
        "out.soft": (plain + augmented) / 2,
        "out.hard": bare["task"],
        "out.ccd": single,
        "out.ccd_step": torch.stack(list(terms(kd_weight=scalars["kd_weight"]).values())).sum(),
        "out.kd_jda_step": torch.stack(list(terms(kd_weight=scalars["kd_weight"], confidence=False).values())).sum(),
        **(jda(tensors, scalars) if "jda.image" in tensors else {}),
    }


def jda(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Tensor]:
    ops = tuple(zip(scalars["jda_ops"], scalars["jda_magnitudes"], strict=True))
    image, sign = tensors["jda.image"].permute(2, 0, 1)[None], tensors["jda.sign"]
    single = torch.cat([OPERATIONS[name](image, m, s[None]) for (name, m), s in zip(ops, sign, strict=True)])
    chained = Chain(ops, scalars["jda_p"]).apply(image, tensors["jda.uniform"][None], sign[None])
    return {"out.jda.single": single.permute(0, 2, 3, 1), "out.jda.chain": chained[0].permute(1, 2, 0)}
