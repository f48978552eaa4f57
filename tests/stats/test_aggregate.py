"""kdbench.stats across tasks: the common complete set, ranks, IQM, improvement, Friedman, Nemenyi, gap recovered."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from kdbench.base.errors import UserError
from kdbench.stats import (
    Layout,
    Missing,
    Suite,
    TaskScale,
    common_set,
    critical_difference,
    friedman,
    gap_recovered,
    iqm,
    mean_ranks,
    mean_ranks_with_failures,
    nemenyi_cd,
    probability_of_improvement,
    tie_groups,
    total_gap,
    win_rates,
)

POINTS = TaskScale("max", "%", (0, 1))


def layout(means: list[list[float]], n: int = 1) -> Layout:
    """Methods a, b, ... with these means (methods, tasks), the same score for every seed."""
    table = np.array(means)
    tasks = tuple(f"t{j}" for j in range(table.shape[1]))
    return Layout(tuple("abcdefgh"[: len(table)]), tasks, tuple(np.repeat(c[:, None], n, 1) for c in table.T), "%")


def random_layout(seed: int, k: int = 5, tasks: int = 3, n: int = 4) -> Layout:
    rng = np.random.default_rng(seed)
    names = tuple(f"m{i}" for i in range(k))
    return Layout(names, tuple(f"t{j}" for j in range(tasks)), tuple(rng.normal(size=(tasks, k, n))), "%")


# The common complete set


def suite() -> Suite:
    full = {0: 70.0, 1: 72.0}
    return Suite(
        "s",
        {"a": POINTS, "b": POINTS, "c": POINTS},
        {
            "kd": {"a": full, "b": full, "c": full},
            "crd": {"a": {0: 71.0, 1: 73.0, 7: 99.0}, "b": full, "c": {0: 70.0, 1: Missing.FAILED}},
            "ssrd": {"a": full, "b": Missing.NOT_APPLICABLE, "c": Missing.WITHDRAWN},
            "late": {"a": {0: 70.0}},
        },
    )


def test_states_of_cells() -> None:
    s = suite()
    assert s.state("kd", "a") is None
    assert s.state("crd", "a") is None  # more seeds than asked for
    assert s.state("crd", "c") is Missing.FAILED
    assert s.state("ssrd", "b") is Missing.NOT_APPLICABLE
    assert s.state("late", "a") is Missing.NOT_RUN  # one of two seeds
    assert s.state("late", "b") is Missing.NOT_RUN
    with pytest.raises(UserError, match="late on a: not_run"):
        s.oriented("late", "a")


def test_common_set_shrinks_to_what_all_hold() -> None:
    got = common_set(suite(), min_coverage=0.6)
    assert got.coverage == {"kd": (3, 3), "crd": (2, 3), "ssrd": (1, 3), "late": (0, 3)}
    assert got.below == ("ssrd", "late")
    assert got.layout is not None
    assert (got.layout.methods, got.layout.tasks) == (("kd", "crd"), ("a", "b"))
    assert got.layout.values[0].tolist() == [[70.0, 72.0], [71.0, 73.0]]  # seed 7 is nobody else's
    assert got.note == "ranked on 2 of 3 tasks"
    assert common_set(suite()).below == ("crd", "ssrd", "late")
    two = common_set(suite(), ["ssrd", "crd"], min_coverage=0.3).layout
    assert two is not None
    assert two.tasks == ("a",)


def test_nothing_to_rank_says_why() -> None:
    assert common_set(suite(), ["late"]).layout is None
    assert "no method covers 100%" in common_set(suite(), ["late"]).note
    apart = Suite("s", {"a": POINTS, "b": POINTS}, {"x": {"a": {0: 1.0, 1: 1.0}}, "y": {"b": {0: 1.0, 1: 1.0}}})
    assert "no task is complete for all" in common_set(apart, min_coverage=0.5).note


def test_lower_is_better_is_turned() -> None:
    years = TaskScale("min", "years", (0,))
    s = Suite("age", {"a": years}, {"x": {"a": {0: 5.0}}, "y": {"a": {0: 4.0}}})
    assert s.oriented("x", "a").tolist() == [-5.0]
    found = common_set(s).layout
    assert found is not None
    assert mean_ranks(found) == {"x": 2.0, "y": 1.0}


@pytest.mark.parametrize(
    ("tasks", "scores", "message"),
    [
        ({"a": POINTS, "b": TaskScale("min", "years", (0,))}, {}, "mixes max %, min years"),
        ({"a": POINTS, "b": TaskScale("max", "years", (0,))}, {}, "mixes"),
        ({"a": TaskScale("up", "%", (0,))}, {}, "'max' or 'min'"),  # type: ignore[arg-type]
        ({"a": TaskScale("max", "%", ())}, {}, "at least one"),
        ({"a": TaskScale("max", "%", (0, 0))}, {}, "distinct"),
        ({"alpha": POINTS}, {"kd": {"alpa": {0: 1.0}}}, "did you mean 'alpha'"),
        ({"a": POINTS}, {"kd": {"a": {0: math.nan, 1: 1.0}}}, "kd on a: a score is not finite"),
    ],
)
def test_bad_suites_are_refused(tasks: dict, scores: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Suite("s", tasks, scores)


def test_bad_choices_are_refused() -> None:
    for methods, message in ((["kdd"], "did you mean 'kd'"), (["kd", "kd"], "named twice")):
        with pytest.raises(UserError, match=message):
            common_set(suite(), methods)
    with pytest.raises(UserError, match="share from 0 to 1"):
        common_set(suite(), min_coverage=7)
    with pytest.raises(UserError, match="not finite"):
        layout([[math.nan], [1.0]])
    with pytest.raises(UserError, match="array is needed"):
        Layout(("a",), ("t",), (np.zeros((2, 3)),), "%")


# Ranks


def test_ranks_and_wins_by_hand() -> None:
    table = layout([[3.0, 1.0], [2.0, 1.0], [1.0, 5.0]])
    assert mean_ranks(table) == {"a": (1 + 2.5) / 2, "b": (2 + 2.5) / 2, "c": (3 + 1) / 2}
    assert win_rates(table) == {"a": (2 + 0.5) / 4, "b": (1 + 0.5) / 4, "c": (0 + 2) / 4}


def test_rounding_does_not_break_a_tie() -> None:
    values = (np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]),)
    assert values[0][0].sum() != values[0][1].sum()
    assert mean_ranks(Layout(("a", "b"), ("t",), values, "%")) == {"a": 1.5, "b": 1.5}


def test_failures_come_last_and_other_gaps_leave_the_task_out() -> None:
    cell = {0: 70.0, 1: 72.0}
    s = Suite(
        "s",
        {"a": POINTS, "b": POINTS, "c": POINTS},
        {
            "kd": {"a": cell, "b": cell, "c": cell},
            "x": {"a": Missing.FAILED, "b": {0: 80.0, 1: 80.0}, "c": cell},
            "y": {"a": {0: Missing.FAILED, 1: 90.0}, "b": {0: 75.0, 1: 75.0}, "c": Missing.NOT_RUN},
        },
    )
    assert mean_ranks_with_failures(s) == {"kd": 2.0, "x": (2.5 + 1) / 2, "y": (2.5 + 2) / 2}
    with pytest.raises(UserError, match="no task on which"):
        mean_ranks_with_failures(Suite("s", {"a": POINTS}, {"x": {}}))


def test_friedman_by_hand_and_by_scipy() -> None:
    table = layout([[3.0, 3.0, 3.0, 2.0], [2.0, 2.0, 1.0, 3.0], [1.0, 1.0, 2.0, 1.0]])
    ranks, k, n = np.array([1.25, 2.0, 2.75]), 3, 4
    got = friedman(table)
    assert got.statistic == pytest.approx(12 * n / (k * (k + 1)) * ((ranks**2).sum() - k * (k + 1) ** 2 / 4))
    other = random_layout(1, k=6, tasks=7)
    assert friedman(other).p == pytest.approx(scipy_stats.friedmanchisquare(*other.means).pvalue)
    assert friedman(layout([[1.0, 1.0]] * 3)).p == 1.0
    for few in (layout([[1.0, 1.0]] * 2), layout([[1.0]] * 3)):
        with pytest.raises(UserError, match="or more"):
            friedman(few)


@pytest.mark.parametrize(("k", "tasks", "cd"), [(6, 4, 3.77), (10, 8, 4.79), (12, 8, 5.89), (20, 30, 5.41)])
def test_nemenyi_critical_difference_table(k: int, tasks: int, cd: float) -> None:
    assert nemenyi_cd(k, tasks) == pytest.approx(cd, abs=0.006)


def test_critical_difference_diagram() -> None:
    table = layout([[float(k)] * 30 for k in (4, 3, 2, 1)])  # ranks 1 to 4, CD = 0.86
    got = critical_difference(table)
    assert (got.methods, got.ranks, got.bars, got.tasks) == (tuple("abcd"), (1, 2, 3, 4), (), 30)
    few = critical_difference(layout([[4.0] * 6, [3.0] * 6, [2.0] * 6, [1.0] * 6]))  # CD = 1.91
    assert few.bars == (("a", "b"), ("b", "c"), ("c", "d"))
    with pytest.raises(UserError):
        nemenyi_cd(1, 3)


# Interquartile mean and probability of improvement


def test_iqm_by_hand_and_by_scipy() -> None:
    table = Layout(("a",), ("t", "u"), (np.array([[1.0, 2.0, 3.0, 100.0]]), np.array([[4.0, 5.0, 6.0, -100.0]])), "%")
    assert iqm(table)["a"].value == (2 + 3 + 4 + 5) / 4
    other = random_layout(2, k=2, tasks=3, n=5)
    for row, name in enumerate(other.methods):
        pooled = np.concatenate([v[row] for v in other.values])
        assert iqm(other)[name].value == pytest.approx(scipy_stats.trim_mean(pooled, 0.25))


def test_bootstrap_is_stratified_and_repeats_its_digits() -> None:
    table = layout([[0.0, 50.0, 100.0]], n=4)  # no noise within a task: pooling would invent some
    got = iqm(table)["a"]
    assert (got.lo, got.hi) == (got.value, got.value)
    noisy = random_layout(3)
    assert iqm(noisy) == iqm(noisy)
    assert iqm(noisy, seed=1) != iqm(noisy)
    one = iqm(layout([[1.0, 2.0]]))["a"]
    assert (one.value, one.lo, one.hi) == (1.5, None, None)


def test_iqm_interval_narrows_with_seeds() -> None:
    few, many = iqm(random_layout(4, k=1, n=4))["m0"], iqm(random_layout(4, k=1, n=400))["m0"]
    assert many.lo is not None
    assert few.lo is not None
    assert (many.hi - many.lo) < 0.3 * (few.hi - few.lo)


def test_differences_to_a_reference() -> None:
    table = random_layout(5)
    centred = table.against("m2")
    assert all((v[2] == 0).all() for v in centred.values)
    assert centred.values[1][0] == pytest.approx(table.values[1][0] - table.values[1][2])
    assert tie_groups(centred).half_widths == pytest.approx(tie_groups(table).half_widths)
    with pytest.raises(UserError, match="no method"):
        table.against("m9")


def test_probability_of_improvement_by_hand_and_by_scipy() -> None:
    values = (np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[5.0, 5.0], [5.0, 4.0]]))
    table = Layout(("a", "b"), ("t", "u"), values, "%")
    got = probability_of_improvement(table, "a", "b")
    assert got.value == (0.5 + 0.75) / 2
    other = random_layout(6, k=2, tasks=2, n=6)
    u = [scipy_stats.mannwhitneyu(v[0], v[1]).statistic / 36 for v in other.values]
    there = probability_of_improvement(other, "m0", "m1")
    back = probability_of_improvement(other, "m1", "m0")
    assert there.value == pytest.approx(np.mean(u))
    assert (back.lo, back.value, back.hi) == pytest.approx((1 - there.hi, 1 - there.value, 1 - there.lo))
    assert there == probability_of_improvement(other, "m0", "m1")
    assert there.lo <= there.value <= there.hi


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_order_of_methods_does_not_matter(seed: int, order: list[int]) -> None:
    table = random_layout(seed)
    moved = Layout(tuple(table.methods[i] for i in order), table.tasks, tuple(v[order] for v in table.values), "%")
    assert mean_ranks(moved) == mean_ranks(table)
    assert win_rates(moved) == win_rates(table)
    assert iqm(moved, resamples=100) == iqm(table, resamples=100)
    assert friedman(moved).p == pytest.approx(friedman(table).p)
    assert sum(mean_ranks(table).values()) == pytest.approx(15)
    assert np.mean(list(win_rates(table).values())) == pytest.approx(0.5)


# Gap recovered

PLAIN = {0: 70.0, 1: 70.2, 2: 69.8}


def test_gap_by_hand() -> None:
    got = gap_recovered({0: 72.0, 1: 72.2, 2: 71.8}, PLAIN, 74.0, "max")
    assert (got.gain, got.gap, got.value) == pytest.approx((2.0, 4.0, 0.5))
    assert got.text == "50 %"
    # S - V is 2 exactly, so g = 2 / (T - V) over T - V's t-interval, 4 +- 4.303 * 0.2 / sqrt(3)
    half = 4.302653 * 0.2 / math.sqrt(3)
    assert (got.lo, got.hi) == pytest.approx((2 / (4 + half), 2 / (4 - half)), rel=1e-6)


def test_gap_of_an_error_turns_all_three() -> None:
    plain = {s: -x for s, x in PLAIN.items()}
    got = gap_recovered({0: -72.0, 1: -72.2, 2: -71.8}, plain, -74.0, "min")
    assert (got.gain, got.gap, got.value) == pytest.approx((2.0, 4.0, 0.5))


@pytest.mark.parametrize(
    ("plain", "teacher", "reason"),
    [
        (PLAIN, None, "no teacher"),
        ({0: 70.0}, 80.0, "1 seed"),
        (PLAIN, 70.9, "gap too small"),  # below 1 point
        (PLAIN, 65.0, "gap too small"),  # teacher below plain
        ({0: 68.0, 1: 70.0, 2: 72.0}, 74.0, "gap too small"),  # 3.5 standard errors
        ({0: 69.0, 1: 71.0}, 75.0, "gap too small"),  # 5 standard errors, but t(1) is 12.7
        ({0: 70.0, 1: 70.0}, 75.0, "no spread over seeds"),
    ],
)
def test_guards(plain: dict[int, float], teacher: float | None, reason: str) -> None:
    got = gap_recovered({0: 72.0, 1: 72.3, 2: 71.8}, plain, teacher, "max")
    assert (got.value, got.lo, got.hi, got.text) == (None, None, None, reason)


def test_gap_text_is_capped_and_the_value_is_not() -> None:
    below = gap_recovered({s: x - 1 for s, x in PLAIN.items()}, PLAIN, 74.0, "max")
    above = gap_recovered({s: x + 8 for s, x in PLAIN.items()}, PLAIN, 74.0, "max")
    assert (below.text, above.text) == ("<0 %", ">150 %")
    assert (below.value, above.value) == pytest.approx((-0.25, 2.0))


def test_total_is_the_ratio_of_sums() -> None:
    easy = ({0: 71.0, 1: 71.2, 2: 70.8}, PLAIN, 71.5)  # 1 of 1.5
    hard = ({0: 72.0, 1: 72.2, 2: 71.8}, PLAIN, 80.0)  # 2 of 10
    got = total_gap([easy, hard], "max")
    assert (got.gain, got.gap, got.value) == pytest.approx((3.0, 11.5, 3 / 11.5))
    assert got.lo < got.value < got.hi
    assert total_gap([easy, (*hard[:2], None)], "max").text == "no teacher"
    for bad in ([], [({0: 1.0}, {1: 1.0}, 2.0)]):
        with pytest.raises(UserError):
            total_gap(bad, "max")


@pytest.mark.parametrize("n", [3, 5])
def test_fiellers_interval_covers(n: int) -> None:
    """True gap 4, true gain 2, seed noise .3 with a shared part: 95 % of intervals hold one half."""
    rng = np.random.default_rng(n)
    hits = shown = 0
    for _ in range(1500):
        shared = rng.normal(0, 0.2, n)
        v, s = 70 + shared + rng.normal(0, 0.2, n), 72 + shared + rng.normal(0, 0.2, n)
        got = gap_recovered(dict(enumerate(s)), dict(enumerate(v)), 74.0, "max")
        if got.lo is not None and got.hi is not None:
            shown += 1
            hits += got.lo <= 0.5 <= got.hi
    assert shown >= 1400
    assert abs(hits / shown - 0.95) < 0.02
