"""Comparisons with the best, and with one reference: what is said wrongly is as rare as stated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from kdbench.stats import Layout, PairedDelta, paired_delta, told, with_best


def layout(x: NDArray[np.float64]) -> Layout:
    """(tasks, methods, seeds) scores as a layout."""
    return Layout(tuple(f"m{i}" for i in range(x.shape[1])), tuple(f"t{j}" for j in range(len(x))), tuple(x), "%")


def drawn(rng: np.random.Generator, means: NDArray[np.float64], sd: NDArray[np.float64], n: int) -> Layout:
    shared = rng.normal(0, 2, (1, 1, n))
    return layout(means[None, :, None] + shared + sd[None, :, None] * rng.normal(size=(1, len(means), n)))


def noise(kind: str, k: int) -> NDArray[np.float64]:
    return {
        "equal": np.ones(k),
        "one": np.r_[10.0, np.ones(k - 1)],
        "fifth": np.where(np.arange(k) < k / 5, 10.0, 1.0),
    }[kind]


@pytest.mark.parametrize("kind", ["equal", "one", "fifth"])
def test_an_equal_method_is_seldom_left_out(kind: str) -> None:
    rng, k, boards = np.random.default_rng(1), 6, 120
    out = 0
    for _ in range(boards):
        found = with_best(drawn(rng, np.zeros(k), noise(kind, k), 5), 1.0)
        assert found is not None
        out += k - len(found.candidates)
    assert out / boards / k <= 0.07


@pytest.mark.parametrize("kind", ["equal", "one", "fifth"])
def test_the_best_method_is_kept_and_no_lower_limit_lies_above_the_truth(kind: str) -> None:
    rng, k, boards = np.random.default_rng(2), 6, 120
    sd = noise(kind, k)
    means = np.r_[np.zeros(k - 1), 2.0 * sd[-1]]
    truth = [mean - np.delete(means, i).max() for i, mean in enumerate(means)]
    lost = wrong = 0
    for _ in range(boards):
        found = with_best(drawn(rng, means, sd, 5), 1.0)
        assert found is not None
        lost += f"m{k - 1}" not in found.candidates
        wrong += any(truth[i] < found.limits[f"m{i}"][0] - 1e-9 for i in range(k))
    assert lost / boards <= 0.05
    assert wrong / boards <= 0.09


def test_words_follow_the_margin() -> None:
    x = np.array([[[90.0, 91, 92, 91.5], [89.9, 90.8, 92.1, 91.3], [80, 81.2, 82, 81.4]]])
    near, far = with_best(layout(x), 1.0), with_best(layout(x), 0.01)
    assert near is not None
    assert far is not None
    assert [near.word(name) for name in near.limits] == ["≈ best", "≈ best", ""]
    assert [far.word(name) for name in far.limits] == ["undecided", "undecided", ""]
    alone = with_best(layout(x[:, [0, 2]]), 1.0)
    assert alone is not None
    assert [alone.word(name) for name in alone.limits] == ["best", ""]


def test_one_seed_or_no_spread_tells_nothing() -> None:
    assert with_best(layout(np.array([[[1.0], [2.0]]])), 1.0) is None
    assert with_best(layout(np.array([[[1.0, 1.0], [2.0, 2.0]]])), 1.0) is None


def test_findings_against_a_reference_follow_the_step_up_rule() -> None:
    """Benjamini and Hochberg's own example: of these 15 p-values the four smallest are findings at 5 %."""
    values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
        0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
    ]  # fmt: skip
    one = paired_delta({0: 1.0, 1: 2.0}, {0: 0.5, 1: 1.0}, "max")
    deltas: dict[str, PairedDelta | None] = {f"m{i}": replace(one, p=p) for i, p in enumerate(values)}
    deltas["m1"] = replace(one, p=0.0004, mean=-1.0)
    found = told({**deltas, "without": None})
    assert [name for name, word in found.items() if word != "not separated"] == ["m0", "m1", "m2", "m3"]
    assert (found["m0"], found["m1"]) == ("better", "worse")
    assert "without" not in found


def test_a_p_value_below_5_percent_is_an_interval_without_0() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        ours, theirs = rng.normal(0.8, 1, 5), rng.normal(0, 1, 5)
        delta = paired_delta(dict(enumerate(ours)), dict(enumerate(theirs)), "max")
        assert delta.p is not None
        assert (delta.p < 0.05) == delta.separated
