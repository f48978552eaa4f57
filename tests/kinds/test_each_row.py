"""What metrics are of each test row: their mean is the metric, and who has none is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdbench import kinds
from kdbench.kinds.base import Evidence

TOGETHER = {
    "rmse", "ece", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "mask_ap", "mask_ap50",
    "obb_ap50", "miou", "pixel_accuracy", "class_accuracy", "chrf", "bleu", "token_nll", "bits_per_byte",
}  # fmt: skip
"""Metrics of all rows together."""


def evidence(kind: str) -> Evidence:
    """Answers that no method gave, to 40 rows."""
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    def classes(count: int) -> torch.Tensor:
        return torch.randint(4, (count,), generator=draw)

    y = classes(40)
    if kind == "regression":
        return Evidence(numbers(40), numbers(40))
    if kind == "hashing":
        codes = [numbers(rows, 6).sign().to(torch.int8) for rows in (40, 60, 60)]
        return Evidence(codes[0], y, database=(codes[1], classes(60)), teacher_database=(codes[2], classes(60)), k=30)
    if kind == "representation":
        near = [numbers(rows, 3) for rows in (40, 60)]
        found = Evidence(near[0], y, database=(near[1], classes(60)), untrained=(near[0], (near[1], classes(60))))
        found.finetuned, found.finetuned_untrained = numbers(40, 4), numbers(40, 4)
        return found
    return Evidence(
        numbers(40, 8), y, teacher=numbers(40, 8), emb=numbers(40, 3), gallery=(numbers(60, 3), classes(60))
    )


@pytest.mark.parametrize("kind", ["classification", "regression", "hashing", "representation"])
def test_the_mean_over_rows_is_the_metric(kind: str) -> None:
    given, one = evidence(kind), kinds.kind(kind)
    telling = {name: metric for name, metric in one.own_metrics.items() if metric.each is not None}
    assert telling
    for name, metric in telling.items():
        each: Any = metric.each(given)
        share = each.dtype == torch.bool
        assert len(each) == 40
        assert share == metric.share, name
        assert 0 < float(metric.fn(given)) == pytest.approx((100 if share else 1) * float(each.double().mean())), name


def test_metrics_of_all_rows_together_are_these() -> None:
    assert {name for name, metric in kinds.metrics().items() if metric.each is None} == TOGETHER
