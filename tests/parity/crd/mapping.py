"""crd: two steps on one module, memories and constants between them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.crd.adapter import Contrast, Embedding
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.banks import MemoryBank, multiplicity


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    embeddings, contrasts = [], [Contrast().to(case.dtype) for _ in "st"]
    banks = [MemoryBank(scalars["n_data"], scalars["feat_dim"]).to(case.dtype) for _ in "st"]
    for q, number, bank in zip("st", (1, 2), banks, strict=True):
        features = tensors[f"weight.embed_{q}.weight"].shape[1]
        embeddings.append(case.bind(Embedding(features, scalars["feat_dim"]), f"weight.embed_{q}.", {"": "linear."}))
        bank.rows.copy_(tensors[f"input.memory_v{number}_init"].detach())
    found, totals, step = {}, [], 1
    while f"input.step{step}.index" in tensors:
        given = {name: tensors[f"input.step{step}.{name}"] for name in ("logits_s", "logits_t", "target", "index")}
        counts = multiplicity(tensors[f"input.step{step}.contrast_index"][:, 1:], scalars["n_data"])
        out = {f"v_{q}": e(tensors[f"input.step{step}.emb_{q}"]) for q, e in zip("st", embeddings, strict=True)}
        for q, contrast, bank in zip("st", contrasts, banks[::-1], strict=True):
            memory = bank.rows.clone()  # gradients of both steps are taken after both
            out[f"loss_{q}"] = contrast(out[f"v_{q}"], memory, given["index"], counts, scalars["nce_t"])
            out[f"Z_{q}"] = contrast.z
        for q, number, bank in zip("st", (1, 2), banks, strict=True):
            bank.update(given["index"], out[f"v_{q}"].detach(), scalars["nce_m"])
            out[f"memory_v{number}"] = bank.rows.clone()
        out["loss_ce"] = F.cross_entropy(given["logits_s"], given["target"])
        out["loss_kl"] = kd_loss(given["logits_s"], given["logits_t"], scalars["kd_T"])
        out["loss_kd"] = out["loss_s"] + out["loss_t"]
        weights = torch.tensor([scalars[name] for name in ("gamma", "alpha", "beta")], dtype=case.dtype)
        out["total"] = weights @ torch.stack([out["loss_ce"], out["loss_kl"], out["loss_kd"]])
        totals.append(out["total"])
        found |= {f"output.step{step}.{name}": value for name, value in out.items()}
        step += 1
    return {**found, "output.total": torch.stack(totals).sum()}
