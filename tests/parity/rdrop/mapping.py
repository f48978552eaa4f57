"""rdrop: two passes and their disagreement; sums over real tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Batch, Out


class Twice(Stub):
    """Answers otherwise at every second pass."""

    def __init__(self, one: Tensor, other: Tensor) -> None:
        super().__init__(Out(one))
        self.outs, self.passes = (one, other), 0
        self.dropout = nn.Dropout(0.1)  # what such passes differ by

    def forward(self, batch: Batch) -> Out:
        self.passes += 1
        return Out(self.outs[(self.passes - 1) % 2])


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    real = tensors["target"] != scalars["pad"]
    n = int(real.sum())
    net = Twice(tensors["logits_1"][real], tensors["logits_2"][real])
    made = assembled(
        "rdrop", {"weight": float(scalars["reg_alpha"])}, batch_of(tensors["target"][real]), [net],
        kind="translation", smoothing=scalars["label_smoothing"],
    )  # fmt: skip
    terms = made.terms()
    return {
        "loss_ce": n * terms["task"],
        "loss_kd": n * terms["agree"] / scalars["reg_alpha"],
        "loss_total": n * (terms["task"] + terms["agree"]),
        "n_tokens": torch.tensor(n),
    }
