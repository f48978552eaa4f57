"""kdbench.stats.step_ratio: hand-worked values, recomputable digits, coverage, refusals."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.base.errors import UserError
from kdbench.stats.step_ratio import estimate_ratio, weighted_ratio

PAIRS = [(1.0, 2.0), (10.0, 30.0), (2.0, 8.0)]
BUILDS = [PAIRS, [(1.0, 6.0)] * 3]


def test_ratio_is_the_geometric_mean_over_builds_of_the_median_of_paired_ratios() -> None:
    got = estimate_ratio(BUILDS)
    # build 1: ratios 2, 3, 4 (the ratio of medians would be 8 / 2 = 4), build 2: 6; sqrt(3 * 6)
    assert got.ratio == pytest.approx(math.sqrt(18))
    assert (got.plain_ms, got.method_ms, got.builds, got.n) == (1.0, 6.0, 2, 6)
    # log 3 and log 6 differ by log 2: standard error log(2) / 2, t at 1 degree of freedom 12.7062
    reach = 12.706204736174694 * math.log(2) / 2
    assert (got.lo, got.hi) == pytest.approx((got.ratio * math.exp(-reach), got.ratio * math.exp(reach)))


def test_even_count_takes_the_geometric_middle() -> None:
    assert estimate_ratio([[(1.0, 1.0), (1.0, 4.0)]] * 2).ratio == pytest.approx(2.0)


def test_digits_are_pinned() -> None:
    """A record's interval is recomputed by others."""
    builds = [[(10 + i % 3, 13 + (i + b) % 5 + 0.01 * i * i) for i in range(6)] for b in range(5)]
    got = estimate_ratio(builds)
    logs = [sorted(math.log(m / p) for p, m in pairs) for pairs in builds]
    medians = [(own[2] + own[3]) / 2 for own in logs]
    middle = sum(medians) / 5
    reach = 2.7764451051977987 * math.sqrt(sum((m - middle) ** 2 for m in medians) / 4 / 5)
    expected = (math.exp(middle), math.exp(middle - reach), math.exp(middle + reach))
    assert (got.ratio, got.lo, got.hi) == pytest.approx(expected, rel=1e-12)


def test_drift_common_to_both_arms_divides_out() -> None:
    drift = np.linspace(1, 5, 31)
    got = estimate_ratio([[(float(d), float(1.3 * d)) for d in drift]] * 3)
    assert (got.ratio, got.lo, got.hi) == pytest.approx((1.3, 1.3, 1.3))
    assert got.half_width == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "a list of"),
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
        estimate_ratio([PAIRS, pairs])
    assert "\n" not in str(caught.value)
    assert "build 1" in str(caught.value)
    with pytest.raises(UserError, match="phase 1, build 0"):
        weighted_ratio([(1, BUILDS), (1, [pairs, PAIRS])])


@pytest.mark.parametrize("builds", [[], [PAIRS]])
def test_one_build_gives_no_interval(builds: list) -> None:
    with pytest.raises(UserError, match="at least 2 builds"):
        estimate_ratio(builds)


def test_phases_need_as_many_builds() -> None:
    with pytest.raises(UserError, match="phase 1: 3 builds, the first phase has 2"):
        weighted_ratio([(1, BUILDS), (1, [PAIRS] * 3)])


@pytest.mark.parametrize("builds", [3, 5])
@pytest.mark.parametrize("between", [0.0, 0.01, 0.03])
def test_interval_covers_a_known_ratio_whatever_builds_add(builds: int, between: float) -> None:
    """Equal arms with common drift, noise of each block and an offset of each build: 95 % of intervals hold 1."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(600):
        drift = np.exp(rng.normal(0, 0.3, (builds, 6, 1)))
        own = np.exp(rng.normal(0, 0.02, (builds, 6, 2)) + rng.normal(0, between, (builds, 1, 2)))
        got = estimate_ratio((drift * own).tolist())
        hits += got.lo <= 1.0 <= got.hi
    assert 0.925 <= hits / 600 <= 0.975


def test_one_phase_is_the_plain_estimate() -> None:
    assert astuple(weighted_ratio([(700, BUILDS)])) == pytest.approx(astuple(estimate_ratio(BUILDS)), rel=1e-12)


def test_phases_weigh_by_steps_and_plain_time() -> None:
    light, heavy = [[(2.0, 2.0)] * 3] * 2, [[(2.0, 6.0)] * 3] * 2
    got = weighted_ratio([(300, light), (100, heavy)])
    assert got.ratio == pytest.approx(1.5)  # (300 * 2 + 100 * 6) / (400 * 2)
    assert (got.plain_ms, got.method_ms, got.builds, got.n) == pytest.approx((2.0, 3.0, 2, 12))
    assert (got.lo, got.hi) == pytest.approx((1.5, 1.5))
    slower = weighted_ratio([(300, light), (100, [[(4.0, 12.0)] * 3] * 2)])
    assert slower.ratio == pytest.approx(1.8)  # (300 * 2 + 100 * 12) / (300 * 2 + 100 * 4)


@pytest.mark.parametrize("steps", [0, -1, math.nan, math.inf])
def test_bad_steps_are_refused(steps: float) -> None:
    with pytest.raises(UserError, match="phase 1: steps"):
        weighted_ratio([(5, BUILDS), (steps, BUILDS)])


def test_no_phase_is_refused() -> None:
    with pytest.raises(UserError, match="at least one phase"):
        weighted_ratio([])


TIMES = st.floats(0.01, 1e4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=8), min_size=3, max_size=6), st.floats(0.1, 10))
def test_invariances(builds: list[list[tuple[float, float]]], scale: float) -> None:
    got = estimate_ratio(builds)
    every = [m / p for pairs in builds for p, m in pairs]
    assert min(every) * 0.999999 <= got.ratio <= max(every) * 1.000001
    assert got.lo <= got.ratio <= got.hi
    swapped = estimate_ratio([[(m, p) for p, m in pairs] for pairs in builds])
    assert swapped.ratio == pytest.approx(1 / got.ratio)  # naming the arms the other way round inverts the ratio
    assert (swapped.lo, swapped.hi) == pytest.approx((1 / got.hi, 1 / got.lo))
    unit = estimate_ratio([[(p * scale, m * scale) for p, m in pairs] for pairs in builds])
    assert (unit.ratio, unit.lo, unit.hi) == pytest.approx((got.ratio, got.lo, got.hi))  # the unit divides out
