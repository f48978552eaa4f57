"""hash_kd: what its readings of a relation are, and turned copies as a method's own views."""

from __future__ import annotations

import pytest
import torch
from hashed import two_views

from kdbench.contract import Batch
from kdbench.methods.hash_kd.adapter import gram_by_row, relation, some_views, turned_similarity, with_turns


def test_sp_as_published_looks_at_each_row_alone() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 6).sign(), torch.randn(5, 6).sign()
    alone = sum(gram_by_row(s[None], t[None]) for s, t in zip(student, teacher, strict=True))
    assert gram_by_row(student, teacher).item() == pytest.approx(float(alone), rel=1e-6)
    assert gram_by_row(-student, student).item() == 0  # a code and its opposite have one Gram matrix
    assert relation("sp_batch", student, teacher).item() != pytest.approx(gram_by_row(student, teacher).item())


def test_turned_copies_are_compared_with_all_pictures() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 6).sign(), torch.randn(8, 6).sign()
    own, theirs = (
        torch.stack([torch.stack([code[r] @ code[c] / 6 for c in range(2)]) for r in range(2, 8)]) / 0.5
        for code in (student, teacher)
    )
    p = theirs.softmax(1)
    wanted = (p * (p.log() - own.log_softmax(1))).sum() / 6 * 0.25
    assert turned_similarity(student, teacher, 4).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_views_of_the_turned_copies() -> None:
    pixels = torch.arange(9.0).view(1, 1, 3, 3)
    made = with_turns(pixels, torch.Generator())
    assert made.shape == (5, 1, 1, 3, 3)
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[3], pixels.flip(-1, -2))
    batch = Batch({"image": made.flatten(0, 1)}, torch.zeros(5), torch.zeros(5, dtype=torch.long), 5)
    assert torch.equal(some_views(batch, [0, 2, 3, 4]).view(2).x["image"], made[3])


@pytest.mark.parametrize("form", ["rkd", "pkt", "sp", "sp_batch", "kl"])
def test_a_relation_has_its_weight_and_reaches_view_0_alone(form: str) -> None:
    torch.manual_seed(0)
    views = [torch.randn(5, 8, requires_grad=True) for _ in range(2)]
    teacher = torch.randn(5, 8), torch.randn(5, 8)
    one, twice = (
        two_views("hash_kd", {"relation": form, "weight": w}, tuple(views), teacher).terms()[form] for w in (1, 2)
    )
    assert twice.item() == pytest.approx(2 * one.item(), rel=1e-6)
    first, other = torch.autograd.grad(one, views, allow_unused=True, materialize_grads=True)
    assert first.abs().sum() > 0
    assert other.abs().sum() == 0
