"""Search by Hamming distance, and the mean average precision of what it finds. NumPy alone, in blocks of queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.number[Any]]
BLOCK_BYTES = 128 * 2**20
"""Of the places of one block's database rows, 8 bytes each; the products beside them take half."""


def nearest(queries: Array, database: Array, k: int | None = None) -> Iterator[NDArray[np.int64]]:
    """The first k database rows of each query by Hamming distance, equal ones in the order of the database.

    Args:
        queries: (Q, L) bits, -1 and 1.
        database: (M, L) bits.
        k: rows of each query, all M when None or larger.

    Yields:
        (q, k) row numbers, for some queries after another.
    """
    bits, rows = queries.shape[1], len(database)
    block = max(1, BLOCK_BYTES // (8 * max(1, rows)))
    columns = np.ascontiguousarray(database.astype(np.float32).T)
    small = np.uint8 if bits < 256 else np.uint16  # NumPy sorts these stably in linear time
    for begin in range(0, len(queries), block):
        products = queries[begin : begin + block].astype(np.float32) @ columns
        distances = ((bits - products) / 2).astype(small)
        if k is None or k >= rows:
            yield np.argsort(distances, axis=1, kind="stable")
        else:
            yield np.stack([_first(row, k) for row in distances])


def _first(distances: Array, k: int) -> NDArray[np.int64]:
    """The k smallest of (M,) distances, equal ones in order: all up to the k-th smallest are sorted, the rest never."""
    limit = np.searchsorted(np.bincount(distances).cumsum(), k)
    near = np.flatnonzero(distances <= limit)
    return near[np.argsort(distances[near], kind="stable")][:k]


def average_precisions(
    queries: Array, database: Array, of_queries: Array, of_database: Array, k: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """Average precision at k of each query of a search by Hamming distance, in [0, 1].

    The average precision of a query is the mean, over the relevant rows among its first k, of the share of relevant
    rows up to there (so BRCD's and CIBHash's code); a query without any has 0 and counts.

    Args:
        queries, database: (Q, L) and (M, L) bits, -1 and 1.
        of_queries, of_database: (Q,) and (M,) classes, relevant are rows of the query's; or (Q, C) and (M, C) of 0 and
            1, relevant are rows that share one.
        k: how many of the first found count, all when None.

    Yields:
        (q,) of some queries after another.
    """
    done = 0
    for found in nearest(queries, database, k):
        own, theirs = of_queries[done : done + len(found)], of_database[found]
        hit = theirs == own[:, None] if own.ndim == 1 else np.einsum("qc,qkc->qk", own, theirs) > 0
        precision = hit.cumsum(axis=1) / np.arange(1, found.shape[1] + 1)
        yield (precision * hit).sum(axis=1) / np.maximum(1, hit.sum(axis=1))
        done += len(found)


def mean_of(blocks: Iterable[NDArray[np.float64]]) -> float:
    """The mean of all values of some blocks."""
    total, count = 0.0, 0
    for block in blocks:
        total, count = total + float(block.sum()), count + len(block)
    return total / count


def mean_average_precision(
    queries: Array, database: Array, of_queries: Array, of_database: Array, k: int | None = None
) -> float:
    """mAP@k, the mean of :func:`average_precisions`, which says what is given."""
    return mean_of(average_precisions(queries, database, of_queries, of_database, k))
