"""Memory banks and negatives: what is written, what may be drawn, and the contrast against gathering."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdbench.contract import NotApplicable
from kdbench.methods.shared.banks import MemoryBank, Negatives, info_nce, multiplicity

LABELS = torch.tensor([2, 0, 0, 3, 2, 0, 3, 0])  # class 1 is absent


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("k", [1, 4, 5, 6, 20])
def test_negatives_are_of_other_classes_and_distinct_where_the_class_leaves_enough(k):
    drawn = Negatives(LABELS, k).draw(LABELS, rng())
    assert drawn.shape == (8, k)
    assert (LABELS[drawn] != LABELS[:, None]).all()
    for y, row in zip(LABELS, drawn, strict=True):
        if k <= (y != LABELS).sum():
            assert len(set(row.tolist())) == k


@pytest.mark.parametrize("k", [3, 9])
def test_every_other_row_is_drawn_equally_often(k):
    negatives, y = Negatives(LABELS, k), torch.zeros(4000, dtype=torch.long)
    share = multiplicity(negatives.draw(y, rng()), 8).mean(dim=0) / k
    expected = torch.where(LABELS == 0, 0.0, 0.25)
    assert torch.allclose(share, expected, atol=0.012)  # about five standard errors


def test_same_generator_same_negatives():
    negatives = Negatives(LABELS, 3)
    assert torch.equal(negatives.draw(LABELS, rng(1)), negatives.draw(LABELS, rng(1)))
    assert not torch.equal(negatives.draw(LABELS, rng(1)), negatives.draw(LABELS, rng(2)))


def test_one_class_has_no_negatives():
    with pytest.raises(NotApplicable, match="at least 2 classes"):
        Negatives(torch.full((5,), 3), 2)


def test_contrast_equals_gathering_the_drawn_rows():
    anchor, positive = (F.normalize(torch.randn(6, 5, dtype=torch.float64), dim=1) for _ in range(2))
    bank = torch.randn(8, 5, dtype=torch.float64)
    index = torch.randint(8, (6, 11))  # rows repeat
    anchor.requires_grad_()
    gathered = torch.einsum("nd,nkd->nk", anchor, bank[index])
    scores = torch.cat([(anchor * positive).sum(1, keepdim=True), gathered], dim=1) / 0.07
    by_hand = (scores.logsumexp(1) - scores[:, 0]).mean()
    value = info_nce(anchor, positive, bank, multiplicity(index, 8).double().log(), 0.07)
    assert torch.allclose(value, by_hand, rtol=1e-12)
    assert torch.allclose(*(torch.autograd.grad(v, anchor)[0] for v in (value, by_hand)), rtol=1e-10)


def test_bank_starts_near_unit_length_and_is_saved():
    bank = MemoryBank(2000, 16)
    assert abs(float(bank.rows.square().sum(1).mean()) - 1) < 0.02
    assert set(bank.state_dict()) == {"rows"}


def test_update_moves_the_given_rows_only():
    bank = MemoryBank(6, 4)
    before, new, index = bank.rows.clone(), F.normalize(torch.randn(2, 4), dim=1), torch.tensor([4, 1])
    bank.update(index, new, 0.9)
    assert torch.allclose(bank.rows[index], F.normalize(0.9 * before[index] + 0.1 * new, dim=1))
    assert torch.equal(bank.rows[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def test_a_row_that_cancels_to_zero_stays_finite():
    bank = MemoryBank(2, 4)
    bank.rows[0] = torch.tensor([1.0, 0, 0, 0])
    bank.update(torch.tensor([0]), -bank.rows[:1], 0.5)
    assert torch.isfinite(bank.rows).all()


def test_views_are_written_one_after_the_other():
    bank, twin = MemoryBank(4, 3), MemoryBank(4, 3)
    twin.load_state_dict(bank.state_dict())
    index, values = torch.tensor([2, 0]), torch.randn(4, 3)
    bank.update(index.repeat(2), values, 0.5, views=2)
    twin.update(index, values[:2], 0.5)
    twin.update(index, values[2:], 0.5)
    assert torch.equal(bank.rows, twin.rows)
