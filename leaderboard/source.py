"""All that the board reads from the index, once, as plain rows. Nothing else of the board knows SQL."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from kdbench.ledger import totals
from kdbench.record import Problem
from kdbench.store import Store

Row = dict[str, Any]
TaskKey = tuple[str, int]
"""Name and version of a task."""


@dataclass(frozen=True)
class Source:
    """Rows of the index by what they are looked up by.

    Attributes:
        cells: rows of ``v_cell``.
        runs: run id to its row of ``v_runs``.
        deltas: (run id, reference method) to (seed, score, the reference's score).
        overhead, deploy, environment: run id to its row, for the runs that cells quote.
        stages: run id to its stages in order.
        teachers: run id to (device-hours of training its teachers, basis); None hours where one is not known.
        verifications, withdrawn: run id to the rows of its side file.
        data_rows: training rows of a task.
        settings: run id to its hyper-parameters (``params``) and what the method asked of the task (``needs``), for
            the first run of every cell.
        recipe_ratios: run id to its recipe cost over plain's (:mod:`kdbench.ledger`), for the run that each cell's
            overhead is quoted from.
        skipped: files that are no valid record, and why.
    """

    cells: list[Row]
    runs: dict[str, Row]
    deltas: dict[tuple[str, str], tuple[int, float, float]]
    overhead: dict[str, Row]
    deploy: dict[str, Row]
    environment: dict[str, Row]
    stages: dict[str, list[Row]]
    teachers: dict[str, tuple[float | None, str]]
    verifications: dict[str, list[Row]]
    withdrawn: dict[str, Row]
    data_rows: dict[TaskKey, int]
    settings: dict[str, Row]
    recipe_ratios: dict[str, float]
    skipped: tuple[Problem, ...] = field(default=())


_TEACHERS = "SELECT run_id, record->'$.models.teachers' AS teachers FROM runs WHERE status = 'ok' ORDER BY run_id"
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


def read(store: Store) -> Source:
    """Everything the pages need, except the records themselves, which run pages read one by one."""
    stages: dict[str, list[Row]] = defaultdict(list)
    for row in store.query("SELECT * FROM stages ORDER BY run_id, ord"):
        stages[row["run_id"]].append(row)
    verifications: dict[str, list[Row]] = defaultdict(list)
    for row in store.query("SELECT * FROM verifications ORDER BY run_id, ord"):
        verifications[row["run_id"]].append(row)
    cells = store.cells()
    return Source(
        cells=cells,
        runs=_by_run(store.runs()),
        deltas={
            (row["run_id"], row["reference"]): (row["seed"], row["score"], row["reference_score"])
            for row in store.deltas()
        },
        overhead=_by_run(store.query("SELECT * FROM overhead ORDER BY run_id")),
        deploy=_by_run(store.query("SELECT * FROM deploy ORDER BY run_id")),
        environment=_by_run(store.query("SELECT * FROM environment ORDER BY run_id")),
        stages=dict(stages),
        teachers={row["run_id"]: _training(json.loads(row["teachers"])) for row in store.query(_TEACHERS)},
        verifications=dict(verifications),
        withdrawn=_by_run(store.query("SELECT * FROM withdrawn ORDER BY run_id")),
        data_rows={(row["task"], row["task_version"]): row["n"] for row in store.query(_TRAIN_ROWS)},
        settings={
            row["run_id"]: {"params": json.loads(row["params"]), "needs": json.loads(row["needs"])}
            for row in store.query(_SETTINGS, [[cell["run_ids"][0] for cell in cells]])
        },
        recipe_ratios=_recipe_ratios(store, cells),
        skipped=store.report.bad,
    )


def _recipe_ratios(store: Store, cells: list[Row]) -> dict[str, float]:
    measured = store.records(sorted({cell["overhead_run_id"] for cell in cells if cell["overhead_run_id"]}))
    ratios = {run: totals(record).ratio("recipe") for run, record in measured.items()}
    return {run: ratio for run, ratio in ratios.items() if ratio is not None}


def _training(teachers: list[Row]) -> tuple[float | None, str]:
    """Device-hours spent on all teachers and the weakest basis of the figure; None hours where one is unknown."""
    costs = [teacher["training"] for teacher in teachers]
    bases = {cost["basis"] for cost in costs if cost}
    basis = next((word for word in ("cited", "projected") if word in bases), "measured")
    return (None if None in costs else sum(cost["device_h"] for cost in costs)), basis


def _by_run(rows: list[Row]) -> dict[str, Row]:
    return {row["run_id"]: row for row in rows}
