"""Tie groups: boards of equal methods stay whole however unequal their noise, and better methods are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from kdbench.stats import Layout, tie_groups
from kdbench.stats.ties import tie_runs


def board(x: NDArray[np.float64], names: tuple[str, ...] | None = None) -> Layout:
    """(tasks, methods, seeds) scores as a layout."""
    names = names or tuple(f"m{i}" for i in range(x.shape[1]))
    return Layout(names, tuple(f"t{j}" for j in range(len(x))), tuple(x), "%")


def boards(rng: np.random.Generator, count: int, k: int, tasks: int, n: int, own: object = 1.0) -> NDArray[np.float64]:
    """(count, tasks, k, n): no true difference, a part shared over methods by task and seed, own noise by method."""
    shared = rng.normal(0, 2, (count, tasks, 1, n)) + rng.normal(0, 20, (1, tasks, 1, 1))
    return shared + np.broadcast_to(np.asarray(own, float), (k,))[:, None] * rng.normal(size=(count, tasks, k, n))


def split_share(x: NDArray[np.float64]) -> float:
    return float(np.mean([tie_groups(board(b)).split for b in x]))


def noises(rng: np.random.Generator, kind: str, k: int) -> NDArray[np.float64]:
    """(k,) standard deviations."""
    if kind == "mixture":  # a fifth ten times noisier
        return np.where(np.arange(k) < k / 5, 10.0, 1.0)
    if kind == "log-uniform":
        return np.exp(rng.uniform(0, math.log(10), k))
    one = float(kind.removeprefix("one "))
    return np.array([one] + [1.0] * (k - 1))


KINDS = ("one 1", "one 3", "one 10", "mixture", "log-uniform")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [6, 34])
def test_equal_methods_split_at_most_6_percent_of_boards_whatever_the_noise(k: int, kind: str) -> None:
    """Tukey's studentized range, which takes one noise for all, splits up to 60 % of these boards."""
    rng = np.random.default_rng(k)
    x = np.concatenate([boards(rng, 1, k, 1, 5, noises(rng, kind, k)) for _ in range(300)])
    assert split_share(x) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("k", "tasks", "n", "most"),
    [(3, 1, 5, 0.06), (6, 1, 3, 0.09), (12, 2, 3, 0.06), (12, 2, 5, 0.06), (34, 1, 3, 0.075), (46, 1, 5, 0.06)],
)
def test_equal_methods_split_few_boards_everywhere(k: int, tasks: int, n: int, most: float, kind: str) -> None:
    """One task of 3 seeds tells the noise poorly; what the rule's docstring says of it."""
    rng = np.random.default_rng(100 * k + tasks)
    x = np.concatenate([boards(rng, 1, k, tasks, n, noises(rng, kind, k)) for _ in range(1500)])
    assert split_share(x) <= most


def test_tasks_of_unequal_noise_split_at_most_6_percent_of_boards() -> None:
    """One task ten times noisier: its degrees of freedom are nearly all there are."""
    x = boards(np.random.default_rng(5), 500, 6, 2, 5)
    x[:, 1] *= 10
    assert split_share(x) <= 0.06


def test_a_noisy_method_leaves_the_others_apart() -> None:
    """Four methods 8 of their own sd apart, a fifth a hundred times noisier: the four keep their ranks."""
    x = boards(np.random.default_rng(3), 100, 5, 1, 5, [100, 1, 1, 1, 1]) + 8 * np.arange(5)[:, None]
    apart = [all(g.separated(f"m{i}", f"m{i + 1}") for i in (1, 2, 3)) for g in map(tie_groups, map(board, x))]
    assert np.mean(apart) >= 0.8


def test_a_method_far_below_is_separated_where_paired_tests_of_all_pairs_cannot() -> None:
    """30 methods, 5 seeds, one ten times noisier and 30 of its sd below: t(4) with Holm over 435 pairs needs t > 15."""
    x = boards(np.random.default_rng(9), 100, 30, 1, 5, [10.0] + [1.0] * 29)
    x[:, :, 0] -= 60
    least = scipy_stats.t.ppf(1 - 0.025 / 435, 4)
    new = old = 0
    for one in x:
        got = tie_groups(board(one))
        new += got.labels[-1] == "30"
        old += all(abs(scipy_stats.ttest_rel(one[0, 0], one[0, i]).statistic) > least for i in range(1, 30))
    assert new >= 80
    assert old <= 40


def test_a_clearly_better_method_is_separated() -> None:
    """3.6 own-noise sd above 33 equals, 2 tasks, 5 seeds: alone in front on at least 90 % of boards."""
    x = boards(np.random.default_rng(2), 100, 34, 2, 5)
    x[:, :, 7] += 3.6
    groups = [tie_groups(board(b)) for b in x]
    assert np.mean([g.methods[0] == "m7" and g.labels[0] == "1" for g in groups]) >= 0.9


def test_two_methods_are_judged_by_the_paired_t_test() -> None:
    """d = 2, 1, 3: mean 2, sd 1, and h is the same for both."""
    got = tie_groups(board(np.array([[[3.0, 5.0, 7.0], [1.0, 4.0, 4.0]]])))
    assert math.hypot(*got.half_widths) == pytest.approx(scipy_stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert got.means == pytest.approx((5.0, 3.0))
    assert got.labels == ("1-2", "1-2")
    assert got.note == "methods 2.5 points or less apart share ranks (paired t-test, 1 task, n = 3)"


def test_labels_and_overlapping_groups() -> None:
    """Means 9, 6, 3; equal noise of variance 3 / 2 by 4 degrees of freedom: h = 4.131 sqrt(1 / 2).

    Neighbours, 3 < sqrt(2) h = 4.13 apart, tie; the ends, 6 apart, do not.
    """
    noise = np.array([[0.0, 1.0, -1.0], [1.0, -1.0, 0.0], [-1.0, 0.0, 1.0]])
    got = tie_groups(board(np.array([[9.0], [6.0], [3.0]])[None] + noise[None], ("a", "b", "c")))
    assert got.half_widths == pytest.approx([4.131 * math.sqrt(0.5)] * 3, abs=1e-3)
    assert got.labels == ("1-2", "1-3", "2-3")
    assert got.groups == (("a", "b"), ("b", "c"))
    assert got.better == {("a", "c")}
    assert got.separated("c", "a")
    assert not got.separated("a", "b")
    apart = tie_groups(board(np.array([[90.0], [60.0], [30.0]])[None] + noise[None]))
    assert apart.labels == ("1", "2", "3")
    assert apart.groups == (("m0",), ("m1",), ("m2",))


def test_more_shared_noise_changes_nothing() -> None:
    x = boards(np.random.default_rng(0), 1, 6, 2, 5)[0]
    plain, shifted = tie_groups(board(x)), tie_groups(board(x + np.random.default_rng(1).normal(0, 50, (2, 1, 5))))
    assert shifted.half_widths == pytest.approx(plain.half_widths)
    assert shifted.methods == plain.methods


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (np.array([[[1.0, 2.0]]]), "one method"),
        (np.array([[[1.0], [9.0], [5.0]]]), "fewer than 2 seeds"),
        (np.array([[[1.1, 2.2], [3.1, 4.2], [0.1, 1.2]]]), "no spread"),
    ],
)
def test_nothing_to_judge_by_gives_one_group(x: NDArray[np.float64], reason: str) -> None:
    got = tie_groups(board(x))
    assert (got.rule, got.split, len(got.groups)) == ("none", False, 1)
    assert reason in got.note
    assert set(got.labels) == {f"1-{x.shape[1]}" if x.shape[1] > 1 else "1"}


def test_tasks_may_differ_in_seeds() -> None:
    rng = np.random.default_rng(3)
    layout = Layout(("a", "b", "c"), ("t", "u"), (rng.normal(size=(3, 3)), rng.normal(size=(3, 6))), "%")
    got = tie_groups(layout)
    assert all(h > 0 for h in got.half_widths)
    assert "n = 3 to 6" in got.note


def test_runs_by_hand() -> None:
    apart = np.abs(np.subtract.outer([0, 1, 2, 9], [0, 1, 2, 9])) > 1.5
    assert tie_runs(apart) == [(0, 1), (1, 2), (3, 3)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.permutations(range(5)), st.sampled_from([1.0, 15.0]))
def test_order_of_methods_does_not_matter(seed: int, order: list[int], noise: float) -> None:
    x = boards(np.random.default_rng(seed), 1, 5, 2, 4, [noise, 1, 1, 1, 1])[0] + 2 * np.arange(5)[:, None]
    names = tuple("abcde")
    plain, moved = tie_groups(board(x, names)), tie_groups(board(x[:, order], tuple(names[i] for i in order)))
    assert moved.better == plain.better
    assert dict(zip(moved.methods, moved.labels, strict=True)) == dict(zip(plain.methods, plain.labels, strict=True))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_turning_the_scale_turns_the_board(seed: int, factor: float) -> None:
    x = boards(np.random.default_rng(seed), 1, 4, 2, 3)[0] + 3 * np.arange(4)[:, None]
    plain, flipped = tie_groups(board(x)), tie_groups(board(-factor * x))
    assert flipped.better == {(b, a) for a, b in plain.better}
    assert flipped.ranks == tuple((5 - last, 5 - first) for first, last in reversed(plain.ranks))
