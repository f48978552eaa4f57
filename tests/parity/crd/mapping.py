"""crd: two steps on one module, memories and constants between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.crd.adapter import Contrast, Embedding
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
        index, drawn = tensors[f"input.step{step}.index"], tensors[f"input.step{step}.contrast_index"]
        counts = multiplicity(drawn[:, 1:], scalars["n_data"])
        out = {f"v_{q}": e(tensors[f"input.step{step}.emb_{q}"]) for q, e in zip("st", embeddings, strict=True)}
        for q, contrast, bank in zip("st", contrasts, banks[::-1], strict=True):
            memory = bank.rows.clone()  # gradients of both steps are taken after both
            out[f"loss_{q}"] = contrast(out[f"v_{q}"], memory, drawn[:, 0], counts, scalars["nce_t"])
            out[f"Z_{q}"] = contrast.z
        for q, number, bank in zip("st", (1, 2), banks, strict=True):
            bank.update(index, out[f"v_{q}"].detach(), scalars["nce_m"])
            out[f"memory_v{number}"] = bank.rows.clone()
        found |= {f"output.step{step}.{name}": value for name, value in out.items()}
        found |= case.totals(scalars, out["loss_s"] + out["loss_t"], f"step{step}.")
        totals.append(found[f"output.step{step}.total"])
        step += 1
    return {**found, "output.total": torch.stack(totals).sum()}
