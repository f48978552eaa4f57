"""hkd: neighbours, embeddings, targets, four contrasts, banks after the step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.hkd.adapter import Embedding, contrasts, neighbours, smoothed
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.banks import MemoryBank, multiplicity


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    index, tau, d = tensors["idx"], scalars["nce_T"], scalars["feat_dim"]
    banks = tensors["memory_s"].detach(), tensors["memory_t"].detach()
    stored = banks[0][index], banks[1][index]
    log_counts = multiplicity(tensors["contrast_idx"], len(banks[0])).to(case.dtype).log()
    graph = len(index) >= scalars["knn_k"]
    sides = [Embedding(tensors[f"f_{q}"].shape[1], d) for q in "st"]
    for q, side in zip("st", sides, strict=True):
        case.bind(side.embed, f"embed_{q}.")
        if graph:
            case.bind(side.graph, f"gnn_{q}.")
    nodes = [side.nodes(tensors[f"f_{q}"]) for q, side in zip("st", sides, strict=True)]
    found = dict(zip(("emb_s", "emb_t"), nodes, strict=True))
    individual = contrasts(nodes, stored, banks, log_counts, tau)
    found |= {"loss_ind_s": individual[0], "loss_ind_t": individual[1]}
    contrast = individual.sum()
    if graph:
        nearest = [neighbours(tensors[f"logits_{q}"], scalars["knn_k"]) for q in "st"]
        mixed = [side.mixed(node, near) for side, node, near in zip(sides, nodes, nearest, strict=True)]
        targets = [smoothed(*of, scalars["smooth_momentum"]) for of in zip(stored, mixed, strict=True)]
        terms = contrasts(mixed, targets, banks, log_counts, tau)
        contrast = contrast + terms.sum()
        for i, q in enumerate("st"):
            found |= {f"knn_{q}": nearest[i].sort(1).values, f"graph_emb_{q}": mixed[i], f"smooth_{q}": targets[i]}
            found[f"loss_graph_{q}"] = terms[i]
    for q, start, new in zip("st", banks, nodes, strict=True):
        bank = MemoryBank(*start.shape).to(case.dtype)
        bank.rows.copy_(start)
        if graph:
            bank.update(index, new, scalars["memory_momentum"])
        found[f"memory_{q}_after"] = bank.rows
    found["loss_cls"] = F.cross_entropy(tensors["logits_s"], tensors["labels"])
    found["loss_kl"] = kd_loss(tensors["logits_s"], tensors["logits_t"], scalars["kd_T"])
    found["loss_hkd"] = contrast
    weights = torch.tensor([scalars["gamma"], scalars["alpha"], scalars["beta"]], dtype=case.dtype)
    found["loss_total"] = weights @ torch.stack([found["loss_cls"], found["loss_kl"], contrast])
    return found
