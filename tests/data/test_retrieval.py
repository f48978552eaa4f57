"""Retrieval metrics against a direct count."""

from __future__ import annotations

import pytest
import torch

from kdbench import kinds
from kdbench.kinds.base import Evidence

score = kinds.kind("classification").score
NAMES = ["recall1", "recall5", "recall10"]


def test_recall_counts_queries_with_a_near_neighbour_of_their_class() -> None:
    generator = torch.Generator().manual_seed(0)
    gallery, queries = torch.randn(60, 4, generator=generator), torch.randn(25, 4, generator=generator)
    classes, y = torch.arange(60) % 12, torch.arange(25) % 12
    found = score(NAMES, Evidence(torch.zeros(25, 12), y, emb=queries, gallery=(gallery, classes)))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], gallery[None], dim=2)
    for name, k in zip(NAMES, (1, 5, 10), strict=True):
        near = cosine.argsort(dim=1, descending=True)[:, :k]
        expected = 100 * (classes[near] == y[:, None]).any(1).float().mean()
        assert found[name] == pytest.approx(float(expected), abs=1e-4)
    assert found["recall1"] < found["recall5"] < found["recall10"]


def test_length_does_not_matter_and_small_galleries_are_searched_whole() -> None:
    gallery = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    predictions = Evidence(
        torch.zeros(2, 2), torch.tensor([0, 1]), emb=gallery * 1e3, gallery=(gallery * 1e-3, torch.tensor([0, 1]))
    )
    assert score(["recall1", "recall10"], predictions) == {
        "recall1": 100.0,
        "recall10": 100.0,
    }


def test_without_embeddings_retrieval_is_left_out() -> None:
    found = score(["top1", "recall1"], Evidence(torch.eye(3), torch.arange(3)))
    assert found == {"top1": 100.0}
