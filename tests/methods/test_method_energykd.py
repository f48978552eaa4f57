"""energykd: thresholds, temperatures by row, mixed rows."""

from __future__ import annotations

import pytest
import torch

from kdbench.methods.energykd.adapter import (
    cutmix,
    energy,
    mixed_rows,
    mixup,
    random_box,
    row_temperatures,
    thresholds,
)
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import row_divergence
from kdbench.specs import registry


def test_sure_rows_have_low_energy_and_large_logits_stay_finite():
    sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert energy(sure, 4.0) < energy(unsure, 4.0)
    assert energy(torch.tensor([[60000.0, -60000.0]]), 4.0).item() == -60000


@pytest.mark.parametrize(("low_share", "high_share"), [(0.2, 0.2), (0.0, 0.5), (0.3, 0.1), (0.0, 0.0), (0.5, 0.5)])
def test_exactly_the_shares_of_rows_lie_strictly_outside(low_share, high_share):
    energies = torch.randn(35)
    low, high = thresholds(energies, low_share, high_share)
    assert int((energies < low).sum()) == int(35 * low_share)
    assert int((energies > high).sum()) == int(35 * high_share)


def test_a_row_at_a_threshold_gets_the_middle_temperature():
    energies = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0])
    found = row_temperatures(energies, (torch.tensor(-2.0), torch.tensor(0.0)), 6.0, 4.0, 2.0)
    assert found[:, 0].tolist() == [6, 4, 4, 4, 2]


def test_one_temperature_for_all_rows_is_kd():
    student, teacher = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    tau = torch.full((5, 1), 3.0).double()
    assert row_divergence(student, teacher, tau).mean().item() == pytest.approx(kd_loss(student, teacher, 3.0).item())


def test_the_papers_direction_is_the_default_and_the_codes_a_variant():
    card = registry.card("energykd")
    defaults, code = card.defaults(), card.variants["energykd-code"].params
    assert defaults["temperature_low_energy"] > defaults["temperature"] > defaults["temperature_high_energy"]
    assert code["temperature_low_energy"] < defaults["temperature"] < code["temperature_high_energy"]


def test_the_first_rows_are_mixed_always_and_twice_where_they_are_unsure():
    energies = torch.tensor([5.0, 0.0, 0.0, 7.0])
    assert mixed_rows(energies, torch.tensor(1.0)).tolist() == [0, 1, 0, 3]
    assert mixed_rows(energies, torch.tensor(9.0)).tolist() == [0, 1]


def test_mixing():
    x, partner = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    pasted = cutmix(x, partner, torch.tensor([1, 0, 3, 2]))
    assert pasted[0, 0].tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert mixup(x, partner, torch.tensor(0.25)).unique().tolist() == [0.75]


def test_boxes_lie_in_the_image_and_cover_a_third_of_it_on_average():
    """A uniform share cut at the border: half of the area would be covered without the border."""
    rng = torch.Generator().manual_seed(0)
    boxes = torch.stack([random_box(32, 24, rng) for _ in range(2000)])
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 32).all()
    assert (boxes[:, 3] <= 24).all()
    share = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).double().mean() / (32 * 24)
    assert 0.25 < share < 0.4
