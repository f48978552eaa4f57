"""ofd: fragile spots."""

from __future__ import annotations

import pytest
import torch

from kdbench.methods.ofd.adapter import connector, margins, overhaul_loss, partial_distance
from kdbench.specs import registry


def test_a_margin_is_the_mean_of_a_channels_negative_values():
    scale, shift = torch.tensor([1.0, -0.5, 2.0]), torch.tensor([0.0, 0.4, -3.0])
    values = shift + scale.abs() * torch.randn(400_000, 3)
    for channel, margin in enumerate(margins(scale, shift).tolist()):
        negative = values[:, channel][values[:, channel] < 0]
        assert margin == pytest.approx(negative.mean().item(), abs=0.02)


def test_a_channel_that_is_hardly_ever_negative_gets_three_deviations():
    assert margins(torch.tensor([0.5]), torch.tensor([5.0])).item() == pytest.approx(-1.5)


@pytest.mark.parametrize(("shift", "margin"), [(-0.7, -0.7), (0.0, 0.0), (0.7, 0.0)])
def test_a_batch_norm_of_scale_zero_gives_the_negative_part_of_its_shift(shift, margin):
    found = margins(torch.zeros(1), torch.tensor([shift]))
    assert found.item() == pytest.approx(margin, abs=1e-6)


def test_below_a_negative_teacher_nothing_counts_and_above_it_the_way_to_the_margin_does():
    teacher, margin = torch.full((1, 1, 1), -5.0), torch.tensor([-1.0])
    assert partial_distance(torch.full((1, 1, 1), -3.0), teacher, margin) == 0
    assert partial_distance(torch.full((1, 1, 1), 1.0), teacher, margin) == 4
    assert partial_distance(torch.full((1, 1, 1), -1.0), torch.full((1, 1, 1), 2.0), margin) == 9


def test_each_stage_weighs_half_of_the_next_deeper_one():
    assert overhaul_loss([torch.tensor(8.0), torch.tensor(8.0), torch.tensor(8.0)], 2) == (2 + 4 + 8) / 2


def test_connectors_start_by_the_teachers_width():
    assert connector(64, 800).conv.weight.std().item() == pytest.approx((2 / 800) ** 0.5, rel=0.02)


def test_the_teachers_statistics_are_its_own_unless_asked_for():
    modes = {}
    for name in ("ofd", "ofd-batchnorm"):
        ref = registry.method(name)
        hp = ref.card.typed({**ref.card.defaults(), **(ref.variant.params if ref.variant else {})})
        modes[name] = ref.adapter().needs(hp).teacher_batchnorm
    assert modes == {"ofd": "eval", "ofd-batchnorm": "batch"}
