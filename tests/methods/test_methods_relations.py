"""Fragile spots of the relation methods: sp, cc, rkd, pkt."""

from __future__ import annotations

import pytest
import torch

from kdbench.methods.cc.adapter import correlation_loss
from kdbench.methods.pkt.adapter import pkt_loss
from kdbench.methods.rkd.adapter import relational_losses
from kdbench.methods.sp.adapter import similarity_loss
from kdbench.specs import registry

PUBLISHED = {"pkt": 30_000.0, "sp": 3000.0}
"""Weights at which a gradient that is merely large would show."""


def rkd(student, teacher):
    return torch.stack(relational_losses(student, teacher)).sum()


LOSSES = {"sp": similarity_loss, "cc": correlation_loss, "rkd": rkd, "pkt": pkt_loss}


@pytest.mark.parametrize(("name", "rows"), [("sp", 2), ("cc", 2), ("rkd", 3), ("pkt", 2)])
def test_smallest_batch(name, rows):
    ref = registry.method(name)
    assert ref.adapter().needs(ref.card.typed(ref.card.defaults())).min_batch == rows
    student = torch.randn(rows, 5, requires_grad=True)
    loss = LOSSES[name](student, torch.randn(rows, 5))
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", ["sp", "pkt"])
def test_one_row_has_no_relation(name):
    assert LOSSES[name](torch.randn(1, 5), torch.randn(1, 7)) == 0


@pytest.mark.parametrize("name", ["cc", "rkd"])
def test_one_row_is_an_error_not_a_nan(name):
    with pytest.raises(ValueError, match="the batch has 1"):
        LOSSES[name](torch.randn(1, 5), torch.randn(1, 5))


@pytest.mark.parametrize("name", ["sp", "rkd", "pkt"])
def test_widths_may_differ_and_equal_embeddings_cost_nothing(name):
    x = torch.randn(6, 5, dtype=torch.float64)
    assert torch.isfinite(LOSSES[name](torch.randn(6, 5), torch.randn(6, 9)))
    assert LOSSES[name](x, x).item() == pytest.approx(0, abs=1e-12)


def test_two_rows_have_no_relations_but_one():
    assert rkd(torch.randn(2, 5), torch.randn(2, 5)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["sp", "cc", "rkd", "pkt"])
@pytest.mark.parametrize("fault", ["zero row", "all zero", "equal rows", "all equal"])
def test_degenerate_embeddings_give_finite_values_and_gradients(name, fault):
    student = torch.randn(6, 5)
    match fault:
        case "zero row":
            student[2] = 0
        case "all zero":
            student[:] = 0
        case "equal rows":
            student[4] = student[1]
        case "all equal":
            student[:] = student[0].clone()
    student.requires_grad_()
    loss = LOSSES[name](student, torch.randn(6, 5))
    (PUBLISHED.get(name, 1.0) * loss).backward()
    assert torch.isfinite(loss)
    assert student.grad.abs().max() < 1e6


def test_teacher_duplicates_are_harmless():
    teacher = torch.randn(6, 5)
    teacher[4] = teacher[1]
    student = torch.randn(6, 5, requires_grad=True)
    rkd(student, teacher).backward()
    assert student.grad.abs().max() < 1e2


def test_angles_of_the_definition():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
    _, angle = relational_losses(x, y)
    # cosines at the three corners: 0, 2/sqrt(29), 5/sqrt(29) against -1, 1, 1; each stands twice among 27 triples
    off = [1.0, 1 - 2 / 29**0.5, 1 - 5 / 29**0.5]
    assert angle.item() == pytest.approx(2 * sum(d * d / 2 for d in off) / 27)


def test_order_counts_for_neighbours_only():
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    turned = torch.randperm(6)
    assert not torch.allclose(correlation_loss(student, teacher), correlation_loss(student[turned], teacher[turned]))
    for name in ("sp", "rkd", "pkt"):
        kept, moved = LOSSES[name](student, teacher), LOSSES[name](student[turned], teacher[turned])
        assert torch.allclose(kept, moved, rtol=1e-4)
