"""seed: two steps on one queue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.seed import adapter


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    queue, found, losses = tensors["queue_before"].detach().T.contiguous(), {}, []
    at = tensors["ptr_before"].detach().squeeze()
    hp = {"queue": scalars["K"], "temperature_s": scalars["t"], "temperature_t": scalars["temp"]}
    for step in range(1, 1 + scalars["steps"]):
        nets = [Stub(Out(tensors[f"{who}_emb_{step}"])) for who in ("student", "teacher")]
        rows = torch.zeros(scalars["B"], dtype=torch.int64)
        made = assembled("seed", hp, batch_of(rows), nets[:1], nets[1], kind="representation", n_train=len(queue))
        method: Any = made.method
        method.queue.rows.copy_(queue)
        method.queue.at.copy_(at)
        with watched(adapter, "similarities") as calls:
            losses.append(made.total())
        teacher, student = (call.result for call in calls["similarities"])
        method.queue.rows = method.queue.rows.clone()  # gradients are taken of both steps at the end
        made.step()
        queue, at = method.queue.rows, method.queue.at
        found |= {
            f"teacher_prob_{step}": (teacher / scalars["temp"]).softmax(dim=1),
            f"student_logits_{step}": student / scalars["t"],
            f"loss_{step}": losses[-1],
            f"queue_after_{step}": queue.T,
        }
    return {**found, "loss_total": torch.stack(losses).sum()}
