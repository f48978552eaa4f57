"""kdbench.stats cells and paired differences: hand-worked values, SciPy's, simulated coverage, words."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from kdbench.base.errors import UserError
from kdbench.stats import CellStat, Missing, item_noise, paired_delta, summarise, verdict
from kdbench.stats.cell import satterthwaite, t_quantile


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_cell_by_hand() -> None:
    got = summarise(seeds(74.0, 75.0, 76.0))
    assert (got.n, got.mean, got.sd) == (3, 75.0, 1.0)
    assert (got.lo, got.hi) == pytest.approx((75 - 4.302653 / math.sqrt(3), 75 + 4.302653 / math.sqrt(3)), rel=1e-6)


def test_interval_is_scipys() -> None:
    values = [71.2, 70.4, 72.9, 71.7, 70.8]
    got = summarise(seeds(*values))
    want = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (got.lo, got.hi) == pytest.approx((want.low, want.high))


def test_one_seed_and_no_spread_have_no_interval() -> None:
    assert summarise(seeds(70.0)) == CellStat(1, 70.0, None, None, None, "1 seed")
    assert summarise(seeds(70.1, 70.1, 70.1)) == CellStat(
        3, pytest.approx(70.1), 0.0, None, None, "no spread over seeds"
    )


@pytest.mark.parametrize("n", [3, 5, 10])
def test_t_interval_covers_95_percent(n: int) -> None:
    """40 000 simulated cells: standard error of the share 0.1 points."""
    x = np.random.default_rng(n).normal(75, 0.3, (40_000, n))
    half = t_quantile(n - 1) * x.std(axis=1, ddof=1) / math.sqrt(n)
    assert abs((np.abs(x.mean(axis=1) - 75) <= half).mean() - 0.95) < 0.005
    one = summarise(seeds(*x[0]))
    assert (one.lo, one.hi) == pytest.approx((x[0].mean() - half[0], x[0].mean() + half[0]))


@pytest.mark.parametrize("values", [(math.nan, 70.0), (math.inf, 70.0), ()])
def test_numbers_that_are_none_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(UserError):
        summarise(seeds(*values))
    with pytest.raises(UserError):
        paired_delta(seeds(*values), seeds(1.0, 2.0), "max")


def test_item_noise_by_hand() -> None:
    assert item_noise(87, 797) == pytest.approx(1.19, abs=0.005)
    assert item_noise(75, 10_000) == pytest.approx(0.433, abs=0.0005)
    assert item_noise(100, 5) == 0
    for bad in ((101, 10), (-1, 10), (50, 0), (math.nan, 10)):
        with pytest.raises(UserError):
            item_noise(*bad)


def test_satterthwaite_by_hand() -> None:
    dfs = np.array([4.0, 4.0])
    assert satterthwaite(np.array([1.0, 1.0]), dfs) == pytest.approx(8)
    assert satterthwaite(np.array([1.0, 0.0]), dfs) == pytest.approx(4)
    assert satterthwaite(np.array([2.0, 1.0]), dfs) == pytest.approx(9 / (5 / 4))
    assert satterthwaite(np.array([0.0, 0.0]), dfs) == 4


def test_missing_kinds() -> None:
    assert {m.value: m.label for m in Missing} == {
        "failed": "failed",
        "withdrawn": "withdrawn",
        "not_applicable": "n/a",
        "not_run": "–",
    }


METHOD, BASE = seeds(75.0, 77.0, 76.0, 78.0), seeds(74.0, 75.0, 75.0, 76.0)


def test_delta_by_hand_and_by_scipy() -> None:
    got = paired_delta(METHOD, BASE, "max")
    want = scipy_stats.ttest_rel(list(METHOD.values()), list(BASE.values())).confidence_interval(0.95)
    assert (got.n, got.mean, got.sd) == (4, 1.5, pytest.approx(1 / math.sqrt(3)))
    assert (got.lo, got.hi) == pytest.approx((want.low, want.high))
    assert got.correlation == pytest.approx(np.corrcoef(list(METHOD.values()), list(BASE.values()))[0, 1])
    assert got.separated
    assert got.pairing_helped


def test_lower_is_better_flips_the_sign() -> None:
    got = paired_delta(METHOD, BASE, "min")
    assert got.mean == -1.5
    assert got.hi < 0


def test_pairs_by_seed_not_by_position() -> None:
    got = paired_delta({3: 10.0, 1: 7.0, 9: 0.0}, {1: 5.0, 3: 9.0, 4: 1.0}, "max")
    assert (got.seeds, got.unpaired, got.mean) == ((1, 3), (4, 9), 1.5)
    assert got.correlation is None  # two points always lie on a line


def test_one_pair_and_no_spread_never_separate() -> None:
    one = paired_delta({0: 90.0}, {0: 70.0}, "max")
    assert (one.mean, one.lo, one.separated, one.note) == (20.0, None, False, "1 seed")
    same = paired_delta(seeds(89.2, 90.3, 91.1), seeds(89.1, 90.2, 91.0), "max")  # 0.1 apart up to rounding
    assert (same.lo, same.separated, same.note) == (None, False, "no spread over seeds")


def test_no_common_seed_and_odd_direction_are_refused() -> None:
    with pytest.raises(UserError, match="no seed in common"):
        paired_delta({0: 1.0}, {1: 1.0}, "max")
    with pytest.raises(UserError, match="'max' or 'min'"):
        paired_delta({0: 1.0}, {0: 1.0}, "higher")  # type: ignore[arg-type]


def test_verdict_words() -> None:
    noise = paired_delta(seeds(1, -1, 2, -2, 0.5), seeds(0, 0, 0, 0, 0), "max")
    assert verdict("reviewkd", "kd", "digits/few-shot", noise, "%") == (
        "kd and reviewkd are not separated on digits/few-shot, n = 5"
    )
    better = verdict("dkd", "kd", "t", paired_delta(METHOD, BASE, "max"), "%")
    assert better == "dkd is better than kd on t by 1.50 points (95 % interval 0.58 to 2.42), n = 4"
    worse = verdict("dkd", "kd", "t", paired_delta(METHOD, BASE, "min"), "years")
    assert worse == "dkd is worse than kd on t by 1.50 years (95 % interval 0.58 to 2.42), n = 4"
    assert verdict("a", "b", "t", paired_delta({0: 2.0}, {0: 1.0}, "max"), "%") == (
        "b and a are not separated on t, n = 1 (1 seed)"
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=8))
def test_swapping_arms_or_direction_mirrors(pairs: list[tuple[float, float]]) -> None:
    a, b = seeds(*(p[0] for p in pairs)), seeds(*(p[1] for p in pairs))
    got, swapped, flipped = paired_delta(a, b, "max"), paired_delta(b, a, "max"), paired_delta(a, b, "min")
    for other in (swapped, flipped):
        assert other.mean == pytest.approx(-got.mean)
        assert other.separated == got.separated
        if got.lo is not None and got.hi is not None:
            assert (other.lo, other.hi) == pytest.approx((-got.hi, -got.lo))


def test_import_is_cheap() -> None:
    """Neither torch nor SciPy is loaded with the package: `list` and `show` import it too."""
    code = "import sys, kdbench.stats; print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
