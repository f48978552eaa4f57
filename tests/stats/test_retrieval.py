"""Search by Hamming distance against a brute-force oracle: ties, blocks, few items, several labels."""

from __future__ import annotations

import numpy as np
import pytest

from kdbench.stats import retrieval
from kdbench.stats.retrieval import mean_average_precision, nearest


def codes(rng: np.random.Generator, rows: int, bits: int) -> np.ndarray:
    return rng.choice([-1, 1], (rows, bits)).astype(np.int8)


def oracle(queries, database, relevant, k):
    """One query and one database row at a time."""
    precisions = []
    for query, wanted in zip(queries, relevant, strict=True):
        distances = [sum(int(a) != int(b) for a, b in zip(query, row, strict=True)) for row in database]
        order = sorted(range(len(database)), key=lambda row: (distances[row], row))[:k]
        seen, found = 0, []
        for place, row in enumerate(order, 1):
            if wanted[row]:
                seen += 1
                found.append(seen / place)
        precisions.append(sum(found) / len(found) if found else 0.0)
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize(("bits", "k", "block"), [(4, 7, 1), (16, None, 64), (4, 50, 10**6), (300, 20, 3000)])
def test_it_is_the_brute_force_search(bits, k, block, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", block)
    rng = np.random.default_rng(bits)
    queries, database = codes(rng, 23, bits), codes(rng, 50, bits)
    y, labels = rng.integers(0, 5, 23), rng.integers(0, 4, 50)  # class 4 is not in the database
    wanted = oracle(queries, database, y[:, None] == labels, k)
    assert mean_average_precision(queries, database, y, labels, k) == pytest.approx(wanted, rel=1e-12)


def test_several_labels_are_relevant_where_one_is_shared():
    rng = np.random.default_rng(0)
    queries, database = codes(rng, 9, 8), codes(rng, 30, 8)
    y, labels = rng.integers(0, 2, (9, 3)), rng.integers(0, 2, (30, 3))
    wanted = oracle(queries, database, (y @ labels.T) > 0, 6)
    assert mean_average_precision(queries, database, y, labels, 6) == pytest.approx(wanted, rel=1e-12)


def test_equal_distances_come_in_the_order_of_the_database():
    database = np.ones((300, 8), np.int8)
    database[7] = -1
    (found,) = nearest(np.ones((2, 8), np.int8), database)
    assert found.tolist() == [[*range(7), *range(8, 300), 7]] * 2
