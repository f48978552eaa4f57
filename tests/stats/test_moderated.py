"""Moderated noise and half-widths, against numbers worked by hand and against simulated draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.stats.moderated import fit_prior, own_noise, width_factor


def test_prior_by_hand() -> None:
    """d = 4, d0 = 6, v0 = 2: trigamma(2) = pi^2/6 - 1, trigamma(3) = pi^2/6 - 5/4, digamma(2), (3) = 1, 3/2 - gamma."""
    gamma = 0.5772156649
    spread = math.sqrt(math.pi**2 / 3 - 2.25)  # of e, k = 3: its variance is trigamma(2) + trigamma(3)
    mean = math.log(2) - (1.5 - gamma) + math.log(3)
    e = mean + spread * np.array([-1, 0, 1])
    df, value = fit_prior(np.exp(e + (1 - gamma) - math.log(2)), 4)
    assert (df, value) == (pytest.approx(6), pytest.approx(2))


def test_variances_that_scatter_by_chance_alone_are_pooled() -> None:
    assert fit_prior(np.array([1.0, 2.0, 3.0]), 4) == (math.inf, pytest.approx(2))
    rng = np.random.default_rng(0)
    df, value = fit_prior(3 * rng.chisquare(4, 4000) / 4 / (rng.chisquare(5, 4000) / 5), 4)
    assert df == pytest.approx(5, rel=0.15)
    assert value == pytest.approx(3, rel=0.05)


def test_a_method_that_repeats_itself_exactly_has_a_prior_too() -> None:
    df, value = fit_prior(np.array([0.0, 1.0, 1.0, 4.0]), 2)
    assert 0 < df < 2
    assert 0 < value < 1


@pytest.mark.parametrize(("k", "df"), [(3, 4), (12, 2), (46, 5.6), (46, 180)])
def test_factor_leaves_one_board_in_twenty(k: int, df: float) -> None:
    """The largest and the least of k t variables, and, for equal and very unequal errors, what they imply for pairs."""
    t = scipy_stats.t.rvs(df, size=(40_000, k), random_state=1)
    c = width_factor(k, df, 0.05)
    assert np.mean(np.hypot(np.maximum(t.max(1), 0), np.maximum(-t.min(1), 0)) > c) == pytest.approx(0.05, abs=0.004)
    for error in (np.ones(k), np.geomspace(1, 100, k)):
        d = np.sort(error * t, axis=1) if (error == 1).all() else error * t
        far = np.abs(d[:, -1] - d[:, 0]) > c * math.hypot(error[0], error[-1])
        assert far.mean() <= 0.052


def test_factor_of_two_is_students() -> None:
    assert width_factor(2, 4, 0.05) == pytest.approx(scipy_stats.t.ppf(0.975, 4))


def test_noise_of_equally_noisy_methods_by_hand() -> None:
    """Squares of 2 a method over (3 - 1)(1 - 1/3) and 3 seeds; pooled, with the (3 - 1)(3 - 1) df of all residuals."""
    own = own_noise([np.array([[0.0, 1, -1], [1, -1, 0], [-1, 0, 1]])])
    assert own.variance == pytest.approx([0.5] * 3)
    assert own.df == pytest.approx([4] * 3)


def test_two_tasks_weigh_the_same() -> None:
    """Variance of a mean over 2 tasks: a quarter of the sum; twice the degrees of freedom where both are alike."""
    one = np.array([[0.0, 1, -1], [1, -1, 0], [-1, 0, 1]])
    own = own_noise([one, one])
    assert own.variance == pytest.approx([0.25] * 3)
    assert own.df == pytest.approx([8] * 3)


def test_variances_are_raised_and_never_lowered() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 5)) * np.array([30.0, 1, 1, 1, 1, 1, 1, 1e-3])[:, None]
    got = own_noise([x]).variance
    plain = x.var(axis=1, ddof=1) / 5
    assert got[0] >= 0.95 * plain[0]
    assert got[-1] > 1e-2 * plain[1:7].mean()


def test_a_noisy_method_does_not_leak_into_the_others() -> None:
    """A method a hundred times noisier adds 1/k^2 of 10,000 variances to every residual where the seed's part is a
    plain mean; weighted, the others stay about as noisy as without it."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 5)) + rng.normal(0, 3, 5)
    x[0] += 100 * rng.normal(size=5)
    alone, beside = own_noise([x[1:]]).variance, own_noise([x]).variance[1:]
    assert np.median(beside / alone) == pytest.approx(1, abs=0.3)
    left = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    assert np.median((left[1:] ** 2).sum(1) / 4 / 5 / alone) > 20
