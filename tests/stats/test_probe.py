"""Probes of frozen embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from kdbench.stats import probe

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 6))
Y = RNG.integers(0, 4, 200)
X = CENTRES[Y] + 0.3 * RNG.normal(size=(200, 6))
QUERIES = CENTRES[RNG.integers(0, 4, 50)] + 0.3 * RNG.normal(size=(50, 6))


def test_a_linear_probe_depends_on_no_order_of_rows() -> None:
    order = RNG.permutation(len(Y))
    assert np.array_equal(probe.linear(X, Y, QUERIES), probe.linear(X[order], Y[order], QUERIES))


def test_a_linear_probe_sits_at_the_minimum_of_its_objective() -> None:
    """Two classes in one dimension: the penalised logistic loss, minimised on a fine grid."""
    x = np.array([[-1.0], [-0.2], [0.1], [1.0], [0.4], [-0.3]])
    y = np.array([0, 0, 0, 1, 1, 1])
    penalty = 0.5
    z = ((x - x.mean()) / (x.std() + 1e-6))[:, 0]
    weights, offsets = np.meshgrid(np.linspace(-3, 3, 601), np.linspace(-2, 2, 401))
    margins = (2 * y - 1)[:, None, None] * (weights * z[:, None, None] + offsets)
    loss = np.log1p(np.exp(-margins)).mean(axis=0) + penalty * weights**2 / 2
    best = np.unravel_index(loss.argmin(), loss.shape)
    border = -offsets[best] / weights[best] * (x.std() + 1e-6) + x.mean()
    near = np.array([[border - 0.02], [border + 0.02]])
    assert probe.linear(x, y, near, penalty).tolist() == [0, 1]


def test_neighbours_vote_and_the_smallest_class_wins_a_tie() -> None:
    rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    y = np.array([7, 3, 3])
    assert probe.nearest(rows, y, np.array([[2.0, 0.0]]), 1).tolist() == [7]
    assert probe.nearest(rows, y, np.array([[2.0, 0.0]]), 2).tolist() == [3]
    assert probe.nearest(rows, y, np.array([[2.0, 0.0]]), 9).tolist() == [3]


def test_few_labels_are_the_first_of_each_class() -> None:
    assert probe.first_of_each(np.array([1, 0, 1, 1, 0, 2]), 2).tolist() == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("how", [probe.linear, probe.nearest])
def test_both_tell_separated_classes(how) -> None:
    assert (how(X, Y, X) == Y).mean() > 0.95
