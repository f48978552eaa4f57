"""word_kd: the label-smoothed loss, and word-level distillation in its selective forms; sums over real tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out

VARIANTS = {"all": "word_kd+sum", "only": "word_kd+only", "batch": "word_kd+batch", "global": "word_kd+global"}


def objective(gradient: str) -> str:
    return f"{gradient.partition('grad_')[0]}loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    def made(variant: str, step: str, queue: Any = None) -> Any:
        real = tensors[f"{step}target"] != scalars["pad"]
        nets = [Stub(Out(tensors[f"{step}{which}_logits"][real])) for which in ("student", "teacher")]
        hp = {"rate": scalars["distil_rate"], "queue": scalars["queue_size"]}
        smooth = {"kind": "translation", "smoothing": scalars["label_smoothing"]}
        batch = batch_of(tensors[f"{step}target"][real])
        found = assembled(variant, hp, batch, nets[:1], nets[1], **smooth)
        method: Any = found.method
        if method.queue is not None:
            method.queue.double() if real.new_zeros(()).double().dtype == nets[0].out.logits.dtype else None
            if queue is not None:
                method.queue.set(queue)
        return found

    real = tensors["target"] != scalars["pad"]
    n = int(real.sum())
    logits, y = tensors["student_logits"][real], tensors["target"][real]
    smoothed = F.cross_entropy(logits, y, label_smoothing=scalars["label_smoothing"], reduction="sum")
    expected = {"n_tokens": torch.tensor(n), "nll": F.cross_entropy(logits, y, reduction="sum")}
    expected["plain_loss_total"] = n * assembled(
        "plain", {}, batch_of(y), [Stub(Out(logits))], kind="translation", smoothing=scalars["label_smoothing"]
    ).total()  # fmt: skip
    assert torch.allclose(expected["plain_loss_total"], smoothed)
    queue = None
    for name, variant in VARIANTS.items():
        one = made(variant, "")
        terms = one.terms()
        expected[f"{name}_loss_total"] = n * torch.stack(list(terms.values())).sum()
        if name != "only":
            expected[f"{name}_loss_kd"] = n * terms["kd"]
        if name == "global":
            queue = one.handed
            expected["queue_after"] = queue
    second = made(VARIANTS["global"], "step2_", queue)
    count = int((tensors["step2_target"] != scalars["pad"]).sum())
    terms = second.terms()
    return expected | {
        "step2_loss_total": count * torch.stack(list(terms.values())).sum(),
        "step2_loss_kd": count * terms["kd"],
        "step2_queue_after": second.handed,
    }
