"""What frozen embeddings tell of classes: a linear probe, nearest neighbours. NumPy and scikit-learn, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.number[Any]]
PENALTY = 1e-3
"""Half of it times the squared weights is added to the probe's mean cross-entropy."""
ITERATIONS = 2000
SMALLEST = 1e-6
"""Added to the deviation of a feature."""
NEIGHBOURS = 20
BLOCK = 1024
"""Queries compared with the database at a time."""


def linear(rows: Array, of_rows: Array, queries: Array, penalty: float = PENALTY) -> NDArray[np.int64]:
    """(Q,) classes of queries by a multinomial logistic regression on standardised embeddings, fitted by L-BFGS.

    There is no seed and no schedule: the objective is convex, with ``penalty`` on its weights.

    Args:
        rows: (M, D) embeddings.
        of_rows: (M,) classes, at least two different ones.
        queries: (Q, D).
    """
    from sklearn.linear_model import LogisticRegression

    rows, queries = rows.astype(np.float64), queries.astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + SMALLEST
    fit = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=ITERATIONS, tol=1e-8)
    fit.fit((rows - mean) / deviation, of_rows)
    found: NDArray[np.int64] = fit.predict((queries - mean) / deviation)
    return found


def nearest(rows: Array, of_rows: Array, queries: Array, k: int = NEIGHBOURS) -> NDArray[np.int64]:
    """(Q,) classes of queries by the majority of the k rows of largest cosine; the smallest number among equals.

    Args:
        rows, of_rows, queries: as of :func:`linear`.
        k: all rows where there are fewer.
    """
    rows, queries = _unit(rows), _unit(queries)
    classes, number = np.unique(of_rows, return_inverse=True)
    found = []
    for begin in range(0, len(queries), BLOCK):
        near = np.argsort(-(queries[begin : begin + BLOCK] @ rows.T), axis=1, kind="stable")[:, :k]
        votes = np.apply_along_axis(np.bincount, 1, number[near], minlength=len(classes))
        found.append(classes[votes.argmax(axis=1)])
    return np.concatenate(found)


def first_of_each(of_rows: Array, labels: int) -> NDArray[np.int64]:
    """Numbers of the first ``labels`` rows of each class, in order."""
    found = [np.flatnonzero(of_rows == one)[:labels] for one in np.unique(of_rows)]
    return np.sort(np.concatenate(found))


def _unit(rows: Array) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.maximum(length, 1e-12)
