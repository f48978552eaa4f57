"""Ingest of 10 000 records, the check of the published: run with ``pytest tests/bench_store.py --benchmark-only``."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import records as factory

from kdbench.index.store import Store
from kdbench.records.folder import records_of
from kdbench.records.provenance import PUBLISHED
from kdbench.records.validate import check_folder

N = 10_000
INGEST_S, AGAIN_S, RESULTS_S, RSS_MIB = 15.0, 2.0, 0.5, 1024.0
CHECK_MS = 20.0
"""Of a published record and what lies beside it: 7 to 12 were measured."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 000 records of 20 methods, 10 tasks, 50 seeds, each with 40 curve points, 50 pairs and 60 packages."""
    where: Path = tmp_path_factory.mktemp("records")
    record = factory.make_record(
        curve=[{**factory.make_record()["curve"][0], "epoch": i, "step": i} for i in range(40)],
        environment__packages={f"package-{i}": f"{i}.2.{i}" for i in range(60)},
        overhead__builds=factory.make_builds(2.0, 10),
    )
    for number in range(N):
        run_id = f"{number:032x}"
        record["run_id"] = record["overhead"]["measured_by"] = run_id
        record["method"]["name"] = f"m{number // 50 % 20}"
        record["task"]["name"] = f"t/{number // 1000}"
        record["seed"], record["metrics"]["last"]["top1"] = number % 50, 50 + number % 37 / 10
        record["spec_hash"] = f"{number // 50:064x}"
        (where / f"{run_id}.json").write_text(json.dumps(record, sort_keys=True, indent=1))
    return where


def test_ingest(folder: Path, tmp_path: Path, benchmark: Any) -> None:
    def ingest() -> Any:
        (tmp_path / "index.duckdb").unlink(missing_ok=True)
        with Store(tmp_path / "index.duckdb") as store:
            return store.ingest(folder)

    report = benchmark.pedantic(ingest, rounds=1)
    assert (report.new, report.bad) == (N, ())
    assert benchmark.stats.stats.max < INGEST_S


def test_ingest_again(folder: Path, tmp_path: Path, benchmark: Any) -> None:
    with Store(tmp_path / "index.duckdb") as store:
        store.ingest(folder)
        report = benchmark.pedantic(lambda: store.ingest(folder), rounds=3)
    assert report.unchanged == N
    assert benchmark.stats.stats.max < AGAIN_S


def test_validate_the_published_records(benchmark: Any) -> None:
    """What ``kdbench records validate``, ``submit``, ``accept`` and ``pack`` all begin with."""
    problems = benchmark.pedantic(check_folder, (PUBLISHED,), rounds=1)
    assert not [problem for problem in problems if problem.level == "error"]
    assert benchmark.stats.stats.max / len(records_of(PUBLISHED)) < CHECK_MS / 1000


def test_views(folder: Path, benchmark: Any) -> None:
    store = Store.memory(folder)
    assert len(benchmark.pedantic(store.cells, rounds=1)) == 200
    started = time.perf_counter()
    assert len(store.deltas()) > 200
    assert time.perf_counter() - started < 2.0


def test_results(folder: Path, tmp_path: Path, benchmark: Any) -> None:
    """``kdbench results`` but for its imports: ingest of what is new (nothing), the rows, the printed table."""
    from rich.console import Console

    from kdbench.results import cells
    from kdbench.stats.cell import t_quantile
    from kdbench.terminal import tables

    t_quantile(2)  # imports scipy
    with Store(tmp_path / "index.duckdb") as store:
        store.ingest(folder)

    def results() -> int:
        with Store(tmp_path / "index.duckdb") as store:
            store.ingest(folder)
            rows = cells.rows(store)
        Console(file=io.StringIO(), width=160).print(*tables.results(rows))
        return len(rows)

    assert benchmark.pedantic(results, rounds=5) == 200
    assert benchmark.stats.stats.median < RESULTS_S


def test_memory(folder: Path, tmp_path: Path) -> None:
    program = (
        "import re, sys, pathlib; from kdbench.index.store import Store\n"
        "with Store(pathlib.Path(sys.argv[2])) as store: store.ingest(pathlib.Path(sys.argv[1]))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"  # ru_maxrss would count what the parent held
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "index.duckdb")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    print(f"peak RSS {float(done.stdout):.0f} MiB")
    assert float(done.stdout) < RSS_MIB
