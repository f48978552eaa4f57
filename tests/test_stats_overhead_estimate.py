"""kdbench.overhead.estimate: hand-worked values, recomputable digits, coverage, refusals."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.errors import UserError
from kdbench.overhead.estimate import estimate_ratio, weighted_ratio

PAIRS = [(1.0, 2.0), (10.0, 30.0), (2.0, 8.0)]


def test_ratio_is_the_median_of_paired_ratios() -> None:
    got = estimate_ratio(PAIRS)
    assert got.ratio == pytest.approx(3.0)  # ratios 2, 3, 4; the ratio of medians would be 8 / 2 = 4
    assert (got.plain_ms, got.method_ms, got.n) == (2.0, 8.0, 3)
    assert (got.lo, got.hi) == pytest.approx((2.0, 4.0))


def test_even_count_takes_the_geometric_middle() -> None:
    assert estimate_ratio([(1.0, 1.0), (1.0, 4.0)]).ratio == pytest.approx(2.0)


def test_same_pairs_same_digits_and_another_seed_moves_the_interval() -> None:
    rng = np.random.default_rng(3)
    pairs = [(float(p), float(p * r)) for p, r in zip(rng.uniform(1, 2, 40), rng.uniform(1.2, 1.5, 40), strict=True)]
    first = estimate_ratio(pairs)
    assert first == estimate_ratio(list(pairs))
    other = estimate_ratio(pairs, seed=1)
    assert (other.lo, other.hi) != (first.lo, first.hi)
    assert other.ratio == first.ratio


def test_digits_are_pinned() -> None:
    """A record's interval is recomputed by others: the stream must not move under a new NumPy."""
    pairs = [(10 + i % 3, 13 + i % 5 + 0.01 * i * i) for i in range(12)]
    got = estimate_ratio(pairs)
    assert (got.ratio, got.lo, got.hi) == pytest.approx(
        (1.3426342266852378, 1.2701109471939127, 1.4967164060034885), rel=1e-12
    )


def test_drift_common_to_both_arms_divides_out() -> None:
    drift = np.linspace(1, 5, 31)
    got = estimate_ratio([(float(d), float(1.3 * d)) for d in drift])
    assert (got.ratio, got.lo, got.hi) == pytest.approx((1.3, 1.3, 1.3))
    assert got.half_width == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(1.0, 2.0)], "at least 2"),
        ([], "at least 2"),
        ([(1.0, 2.0, 3.0)] * 4, "pairs"),
        ([(1.0, 2.0), (1.0,)], "not a list"),
        ([("a", 2.0), (1.0, 2.0)], "not a list"),
        ([(1.0, 2.0), (0.0, 2.0)], r"pair 1 is \[0.0, 2.0\]"),
        ([(1.0, -2.0), (1.0, 2.0)], "pair 0"),
        ([(1.0, math.nan), (1.0, 2.0)], "pair 0"),
        ([(1.0, math.inf), (1.0, 2.0)], "pair 0"),
    ],
)
def test_bad_pairs_are_refused_in_one_line(pairs: list, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        estimate_ratio(pairs)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="phase 0"):
        weighted_ratio([(1, pairs)])


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(UserError, match="resamples=10"):
        estimate_ratio(PAIRS, resamples=10)


def test_interval_covers_a_known_ratio() -> None:
    """A/A pairs with common drift and own noise: the interval holds 1 in about 95 % of 300 measurements."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        drift = np.exp(rng.normal(0, 0.3, (30, 1)))
        got = estimate_ratio((drift * np.exp(rng.normal(0, 0.05, (30, 2)))).tolist(), resamples=400)
        hits += got.lo <= 1.0 <= got.hi
    assert 0.91 <= hits / 300 <= 0.99


def test_one_phase_is_the_plain_estimate() -> None:
    assert astuple(weighted_ratio([(700, PAIRS)])) == pytest.approx(astuple(estimate_ratio(PAIRS)), rel=1e-12)


def test_phases_weigh_by_steps_and_plain_time() -> None:
    light, heavy = [(2.0, 2.0)] * 3, [(2.0, 6.0)] * 3
    got = weighted_ratio([(300, light), (100, heavy)])
    assert got.ratio == pytest.approx(1.5)  # (300 * 2 + 100 * 6) / (400 * 2)
    assert (got.plain_ms, got.method_ms, got.n) == pytest.approx((2.0, 3.0, 6))
    assert (got.lo, got.hi) == pytest.approx((1.5, 1.5))
    slower = weighted_ratio([(300, light), (100, [(4.0, 12.0)] * 3)])
    assert slower.ratio == pytest.approx(1.8)  # (300 * 2 + 100 * 12) / (300 * 2 + 100 * 4)


@pytest.mark.parametrize("steps", [0, -1, math.nan, math.inf])
def test_bad_steps_are_refused(steps: float) -> None:
    with pytest.raises(UserError, match="phase 1: steps"):
        weighted_ratio([(5, PAIRS), (steps, PAIRS)])


def test_no_phase_is_refused() -> None:
    with pytest.raises(UserError, match="at least one phase"):
        weighted_ratio([])


TIMES = st.floats(0.01, 1e4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(TIMES, TIMES), min_size=2, max_size=40), st.floats(0.1, 10))
def test_invariances(pairs: list[tuple[float, float]], scale: float) -> None:
    got = estimate_ratio(pairs, resamples=100)
    assert min(m / p for p, m in pairs) * 0.999999 <= got.lo <= got.hi <= max(m / p for p, m in pairs) * 1.000001
    swapped = estimate_ratio([(m, p) for p, m in pairs], resamples=100)
    assert swapped.ratio == pytest.approx(1 / got.ratio)  # naming the arms the other way round inverts the ratio
    assert (swapped.lo, swapped.hi) == pytest.approx((1 / got.hi, 1 / got.lo))
    unit = estimate_ratio([(p * scale, m * scale) for p, m in pairs], resamples=100)
    assert (unit.ratio, unit.lo, unit.hi) == pytest.approx((got.ratio, got.lo, got.hi))  # the unit divides out
