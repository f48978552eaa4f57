"""hsakd, online: two peers, each with its labels and the other's scores."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.hsakd.adapter import Scores, agreement, class_loss, joint_loss


def objective(gradient: str) -> str:
    return "online_loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y = tensors["target"]

    def stack(rows: Tensor) -> Tensor:  # the vectors' rows are image-major
        return rows.unflatten(0, (len(y), 4)).transpose(0, 1)

    peers = [
        Scores(stack(tensors[f"{peer}_logits"]), [stack(head) for head in case.listed(f"{peer}_ss_logits_", 1)])
        for peer in ("student", "teacher")
    ]
    cls = sum(class_loss(peer, y) + joint_loss(peer, y) for peer in peers)
    div = sum(agreement(own, other, scalars["kd_T"]) for own, other in (peers, peers[::-1]))
    return {"online_loss_cls": cls, "online_loss_div": div, "online_loss_total": cls + div}
