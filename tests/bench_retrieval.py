"""Search of a hashing task at full size, on one core: run with ``pytest tests/bench_retrieval.py --benchmark-only``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

QUERIES, ROWS, BITS, K = 10_000, 50_000, 64, 1000
SECONDS, RSS_MIB = 10.0, 1024.0
SEARCH = f"""
import resource, time  # one thread: its own time is that of a core, whatever else the machine does
import numpy as np
from kdbench.stats.retrieval import mean_average_precision
rng = np.random.default_rng(0)
queries, database = (rng.choice(np.array([-1, 1], np.int8), (n, {BITS})) for n in ({QUERIES}, {ROWS}))
y, labels = (rng.integers(0, 10, n) for n in ({QUERIES}, {ROWS}))
begin = time.process_time()
mean_average_precision(queries, database, y, labels, {K})
print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_search_of_fifty_thousand_codes(benchmark: Any) -> None:
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def search() -> tuple[float, float]:
        done = subprocess.run([sys.executable, "-c", SEARCH], env=one, capture_output=True, text=True, check=True)
        seconds, mib = map(float, done.stdout.split())
        return seconds, mib

    seconds, mib = benchmark.pedantic(search, rounds=1)
    assert seconds < SECONDS
    assert mib < RSS_MIB
