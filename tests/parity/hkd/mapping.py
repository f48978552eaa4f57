"""hkd: neighbours, embeddings, targets, four contrasts, banks after the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, watched
from kdbench.contract import Out
from kdbench.methods.hkd import adapter

HP = {
    "temperature": "kd_T", "tau": "nce_T", "width": "feat_dim", "negatives": "nce_k", "neighbours": "knn_k",
    "momentum": "memory_momentum", "smoothing": "smooth_momentum",
}  # fmt: skip


class Drawn:
    """Negatives as a case stores them."""

    def __init__(self, index: Tensor) -> None:
        self.index = index

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return self.index


def made(case: Any, scalars: dict[str, Any], **weights: float) -> Assembled:
    """The method with the case's networks, weights, banks and negatives."""
    tensors = case.tensors
    nets = [Stub(Out(tensors[f"logits_{q}"], emb=tensors[f"f_{q}"])) for q in "st"]
    hp = {name: scalars[stored] for name, stored in HP.items()}
    batch, n = batch_of(tensors["labels"], index=tensors["idx"]), len(tensors["memory_s"])
    found = assembled("hkd", hp | weights, batch, nets[:1], nets[1], n_train=n)
    method: Any = found.method
    for q, side, bank in zip("st", method.embeddings, method.banks, strict=True):
        case.bind(side.embed, f"embed_{q}.")
        if f"gnn_{q}.weight" in tensors:
            case.bind(side.graph, f"gnn_{q}.")
        bank.rows = tensors[f"memory_{q}"].detach().clone()
    method.negatives = Drawn(tensors["contrast_idx"])
    return found


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    weights = {"ce_weight": scalars["gamma"], "kd_weight": scalars["alpha"], "hkd_weight": scalars["beta"]}
    whole = made(case, scalars, **weights)
    found = {"loss_total": whole.total()}
    whole.step()
    found |= {f"memory_{q}_after": bank.rows for q, bank in zip("st", whole.method.banks, strict=True)}
    with watched(adapter, "contrasts", "neighbours", "smoothed") as calls:
        terms = made(case, scalars, **dict.fromkeys(weights, 1.0)).terms()
    found |= {"loss_cls": terms["task"], "loss_kl": terms["kd"], "loss_hkd": terms["individual"] + terms["graph"]}
    for contrast, anchor, loss in zip(calls["contrasts"], ("emb", "graph_emb"), ("ind", "graph"), strict=False):
        for i, q in enumerate("st"):
            found |= {f"{anchor}_{q}": contrast.args[0][i], f"loss_{loss}_{q}": contrast.result[i]}
    for q, near, smooth in zip("st", calls["neighbours"], calls["smoothed"], strict=False):
        found |= {f"knn_{q}": near.result.sort(1).values, f"smooth_{q}": smooth.result}
    return found
