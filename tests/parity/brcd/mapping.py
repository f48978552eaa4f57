"""brcd: the whole objective on stored clusters and mask, and the retrieval score."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from hashed import own_loss, two_views
from torch import Tensor

from kdbench.contract import bits
from kdbench.methods.brcd import adapter
from kdbench.stats.retrieval import mean_average_precision


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    views = tensors["student_logits_i"], tensors["student_logits_j"]
    masked = scalars["use_bit_mask"]
    hp = {
        "alpha": scalars["alpha"],
        "temperature": scalars["temperature"],
        "cluster_filter": scalars["use_cluster_filter"],
        "mask": "intended" if masked else "none",
    }
    teacher = tensors["teacher_code_i"], tensors["teacher_code_j"]
    mask = tensors["mask_matrix"] if masked else torch.ones_like(tensors["mask_matrix"])
    stored = patch.multiple(
        adapter, clustered=lambda *_: (tensors["cluster_id"], tensors["centers"]), bit_mask=lambda *_: mask
    )
    with own_loss(scalars) as calls, stored:
        terms = two_views("brcd", hp, views, teacher).terms()
    searched = [tensors[f"map_{name}"].numpy() for name in ("query_codes", "db_codes", "query_labels", "db_labels")]
    score = mean_average_precision(*searched, k=scalars["map_topk"])
    return {
        "code_i": bits(views[0]),
        "code_j": bits(views[1]),
        "loss_contrastive": calls["contrast"][0].result,
        "loss_kl": calls["divergence"][0].result,
        "loss_distill": terms["distill"],
        "loss_total": terms["task"] + terms["distill"],
        "map_value": torch.tensor(score, dtype=case.dtype),
    }
