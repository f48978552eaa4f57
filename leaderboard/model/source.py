"""All that the board reads from the index, once, as plain rows. Nothing else of the board knows SQL."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from kdbench import kinds
from kdbench.index.store import Store
from kdbench.records.files import Problem
from kdbench.results.book import Book, Result
from kdbench.specs.registry import PLAIN

IndexRow = dict[str, Any]
TaskKey = tuple[str, int]
"""Name and version of a task."""


@dataclass(frozen=True)
class Elsewhere:
    """An external test set of a task: what it is, and run id to score on it."""

    about: str
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Rows of the index by what they are looked up by.

    Attributes:
        results: every cell of the index, built, in the index's order.
        runs: run id to its row of ``v_runs``.
        deploy, environment: run id to its row, for the runs that cells quote.
        stages: run id to its stages in order.
        verifications, withdrawn: run id to the rows of its side file.
        data_rows: training rows of a task.
        settings: run id to its hyper-parameters (``params``) and what the method asked of the task (``needs``), for
            the first run of every cell.
        also: metric to run id to value, of the metrics that rank a task a second time or have a column.
        external: external test sets of a task by name; where several share one, that of the newest run.
        floors: metric's floor (``Metric.floor``) of a task and metric: means over plain's runs of both.
        skipped: files that are no valid record, and why.
    """

    results: list[Result]
    runs: dict[str, IndexRow]
    deploy: dict[str, IndexRow]
    environment: dict[str, IndexRow]
    stages: dict[str, list[IndexRow]]
    verifications: dict[str, list[IndexRow]]
    withdrawn: dict[str, IndexRow]
    data_rows: dict[TaskKey, int]
    settings: dict[str, IndexRow]
    also: dict[str, dict[str, float]] = field(default_factory=dict)
    external: dict[TaskKey, dict[str, Elsewhere]] = field(default_factory=dict)
    floors: dict[tuple[TaskKey, str], tuple[float, float]] = field(default_factory=dict)
    skipped: tuple[Problem, ...] = field(default=())


_SETTINGS = """
SELECT run_id, record->'$.method.params' AS params, record->'$.method.needs' AS needs
FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))
"""
_TRAIN_ROWS = """
SELECT task, task_version, max(n) AS n FROM (
    SELECT task, task_version, (d->>'n')::BIGINT AS n, d->>'split' AS split
    FROM (SELECT task, task_version, unnest((any_value(record)->'$.task.data')::JSON[]) AS d
          FROM runs GROUP BY task, task_version))
WHERE split LIKE 'train%' GROUP BY task, task_version
"""
_FLOORS = """
SELECT task, task_version, avg(((record->'$.metrics.last')->>?)::DOUBLE) AS score,
    avg(((record->'$.metrics.last')->>?)::DOUBLE) AS floor
FROM runs WHERE method = ? AND metric = ? AND status = 'ok' AND NOT smoke AND NOT custom AND search_hours IS NULL
GROUP BY task, task_version
"""


_ALSO = "SELECT name, run_id, value FROM metrics WHERE selection = 'last' AND list_contains(?::VARCHAR[], name)"


def read(store: Store) -> Source:
    """Everything the pages need, except the records themselves, which run pages read one by one."""
    also: dict[str, dict[str, float]] = defaultdict(dict)
    for row in store.query(
        _ALSO, [[name for name, metric in kinds.metrics().items() if metric.ranks or metric.column]]
    ):
        also[row["name"]][row["run_id"]] = row["value"]
    external: dict[TaskKey, dict[str, Elsewhere]] = defaultdict(dict)
    for row in store.external():
        sets = external[row["task"], row["task_version"]]
        sets.setdefault(row["name"], Elsewhere(row["about"])).scores[row["run_id"]] = row["value"]
    stages: dict[str, list[IndexRow]] = defaultdict(list)
    for row in store.query("SELECT * FROM stages ORDER BY run_id, ord"):
        stages[row["run_id"]].append(row)
    verifications: dict[str, list[IndexRow]] = defaultdict(list)
    for row in store.query("SELECT * FROM verifications ORDER BY run_id, ord"):
        verifications[row["run_id"]].append(row)
    book = Book.of(store, {})
    return Source(
        results=book.results(book.cells),
        runs=_by_run(store.runs()),
        deploy=_by_run(store.query("SELECT * FROM deploy ORDER BY run_id")),
        environment=_by_run(store.query("SELECT * FROM environment ORDER BY run_id")),
        stages=dict(stages),
        verifications=dict(verifications),
        withdrawn=_by_run(store.query("SELECT * FROM withdrawn ORDER BY run_id")),
        data_rows={(row["task"], row["task_version"]): row["n"] for row in store.query(_TRAIN_ROWS)},
        settings={
            row["run_id"]: {"params": json.loads(row["params"]), "needs": json.loads(row["needs"])}
            for row in store.query(_SETTINGS, [[cell["run_ids"][0] for cell in book.cells]])
        },
        also=dict(also),
        external=dict(external),
        floors=_floors(store),
        skipped=store.report.bad,
    )


def _floors(store: Store) -> dict[tuple[TaskKey, str], tuple[float, float]]:
    """Of every metric that has a floor: plain's mean score and mean floor on each task that reports both."""
    found = {}
    for name, metric in kinds.metrics().items():
        if metric.floor:
            for row in store.query(_FLOORS, [name, metric.floor, PLAIN, name]):
                if row["floor"] is not None:
                    found[(row["task"], row["task_version"]), name] = (row["score"], row["floor"])
    return found


def _by_run(rows: list[IndexRow]) -> dict[str, IndexRow]:
    return {row["run_id"]: row for row in rows}
