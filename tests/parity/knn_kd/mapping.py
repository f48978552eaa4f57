"""knn_kd: chances of neighbours' symbols, and the losses with them; sums over real tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out
from kdbench.methods.shared.sentences import neighbour_chances


def objective(gradient: str) -> str:
    return f"{gradient.partition('grad_')[0]}loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    real = tensors["target"] != scalars["pad"]
    n, logits, y = int(real.sum()), tensors["student_logits"][real], tensors["target"][real]
    hp = {
        "temperature": scalars["knn_temp"], "neighbours": scalars["k"], "kd_weight": scalars["kl_loss_combine_rate"],
    }  # fmt: skip

    def terms(variant: str) -> dict[str, Tensor]:
        made = assembled(
            variant, hp, batch_of(y), [Stub(Out(logits))], Stub(Out(logits.detach())), n_train=max(n, scalars["k"]),
            kind="translation", smoothing=scalars["label_smoothing"],
        )  # fmt: skip
        method: Any = made.method
        method.symbols, method.distances = tensors["knn_targets"][real], tensors["distances"][real]
        return method.losses(made.batch, made.at(0))

    both, alone = terms("knn_kd"), terms("knn_kd+only")
    every = (tensors["knn_targets"].flatten(0, 1), tensors["distances"].flatten(0, 1))
    chances = neighbour_chances(*every, scalars["knn_temp"], scalars["V"])
    return {
        "p_knn": chances.view(*real.shape, -1),
        "loss_ce": n * both["ce"],
        "nll": F.cross_entropy(logits, y, reduction="sum"),
        "loss_kd": n * both["knn"] / scalars["kl_loss_combine_rate"],
        "loss_total": n * (both["ce"] + both["knn"]),
        "only_loss_total": n * alone["knn"],
        "n_tokens": torch.tensor(n),
    }
