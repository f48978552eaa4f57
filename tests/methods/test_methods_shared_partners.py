"""Partners of one class, and tables of rows."""

from __future__ import annotations

import pytest
import torch

from kdbench.contract import NotApplicable, Stage
from kdbench.methods.shared.partners import SameClass
from kdbench.methods.shared.tables import RowTable


def test_partners_are_of_the_class_and_every_one_is_drawn_as_often():
    labels = torch.tensor([2, 0, 2, 0, 0, 2, 5, 5])
    draw, rows = SameClass(labels), torch.arange(8).repeat(3000)
    partners = draw(rows, torch.Generator().manual_seed(0))
    assert torch.equal(labels[partners], labels[rows])
    for row, size in ((1, 3), (7, 2)):
        counts = partners[rows == row].bincount(minlength=8)[labels == labels[row]]
        assert len(counts) == size
        assert (counts / 3000 - 1 / size).abs().max() < 0.05
    assert torch.equal(partners, draw(rows, torch.Generator().manual_seed(0)))


def test_a_class_of_one_row_is_refused():
    with pytest.raises(NotApplicable, match="it pairs rows of one class, and class 3 has one training row"):
        SameClass(torch.tensor([0, 3, 0, 4, 4]))


def test_a_table_keeps_the_last_view_of_each_row():
    table = RowTable(4, 2)
    assert not table.rows.any()
    index = torch.tensor([3, 1, 3, 1])
    table.write(index, torch.arange(8.0).view(4, 2), views=2)
    assert table.rows.tolist() == [[0, 0], [6, 7], [0, 0], [4, 5]]
    assert list(table.state_dict()) == ["rows"]


def test_a_stage_has_views_or_partners_and_not_both():
    with pytest.raises(ValueError, match="give views or partners, not both"):
        Stage("s", [], losses=dict, epochs=1, partners=len, views=object())
