"""Records as tables: of runs and of configurations, for pandas and Arrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdbench.base.errors import UserError
from kdbench.base.given import Place, checked
from kdbench.base.home import Home
from kdbench.index import home as index
from kdbench.index.store import Store
from kdbench.records.folder import of_task
from kdbench.records.provenance import PUBLISHED
from kdbench.results import cells, rulesets
from kdbench.specs import local, registry
from kdbench.terminal.tables import as_json

if TYPE_CHECKING:
    import pandas
    import pyarrow

HP = "hp."
"""Before the name of a hyper-parameter among the columns of runs."""
ELSEWHERE = "elsewhere."
"""Before the name of a test set from elsewhere among the columns of runs."""
_RUNS = """
SELECT r.* EXCLUDE (record), o.step_ratio, o.lo AS step_ratio_lo, o.hi AS step_ratio_hi, o.step_ms, o.peak_alloc_mib,
       r.record->'$.method.params' AS params
FROM v_runs r LEFT JOIN overhead o USING (run_id)
WHERE (?::VARCHAR IS NULL OR r.task = ?) AND (?::VARCHAR IS NULL OR r.method = ?)
      AND (?::VARCHAR[] IS NULL OR list_contains(?::VARCHAR[], r.ruleset))
ORDER BY r.task, r.task_version, r.device_class, r.method, r.seed, r.run_id"""
Table = Literal["runs", "cells"]


@dataclass(frozen=True)
class Results:
    """What records say.

    Attributes:
        runs: a row a run: method, task, seed, score, status, cost, teacher, each hyper-parameter as ``hp.<name>``, and
            the score on each test set from elsewhere as ``elsewhere.<name>``.
        cells: a row a configuration over its seeds, as ``kdbench results --json`` prints it.
    """

    runs: list[dict[str, Any]]
    cells: list[dict[str, Any]]

    def to_arrow(self, table: Table = "runs") -> pyarrow.Table:
        """One of the two as an Arrow table; what is nested in a cell becomes columns with dots in their names."""
        import pyarrow

        rows = self.runs if table == "runs" else [_flat(cell) for cell in self.cells]
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pyarrow.table({name: _column([row.get(name) for row in rows]) for name in names})

    def to_pandas(self, table: Table = "runs") -> pandas.DataFrame:
        """The same as a data frame."""
        return self.to_arrow(table).to_pandas()


@checked
def results(
    *,
    task: str | None = None,
    method: str | None = None,
    ruleset: str | None = None,
    out: Place | None = None,
    published: bool = False,
) -> Results:
    """The results of a home folder, or the published ones.

    Args:
        task, method: these alone; names, or paths of your own.
        ruleset: ``published`` hyper-parameters alone, ``tuned`` ones of any search, or of one such as ``tuned-8``.
        out: home folder, the user's when None.
        published: the records that kdbench publishes instead.

    Raises:
        UserError: an unknown name, no records there, none of the ruleset, or no checkout that has published ones.
    """
    where: dict[str, Any] = {}
    if task is not None:
        where["task"] = registry.task(local.task(task)).name
    if method is not None:
        where["method"] = registry.method(local.method(method)).name

    def read(store: Store) -> Results:
        of = None if ruleset is None else rulesets.chosen(store, ruleset)
        runs = _runs(store, where.get("task"), where.get("method"), of)
        return Results(runs, [as_json(row) for row in cells.rows(store, ruleset=ruleset, **where)])

    if published:
        with Store.memory(*_published(where.get("task"))) as store:
            return read(store)
    home = Home.find(None if out is None else Path(out))
    if not home.records.is_dir():
        raise UserError(f"no records in {home.root}; run kdbench.evaluate first, or name the folder with out=")
    return index.use(home, read)


def of_runs(home: Home, run_ids: Sequence[str]) -> Results:
    """The results of some runs, and the configurations that hold them."""
    wanted = set(run_ids)

    def read(store: Store) -> Results:
        rows = [row for row in _runs(store) if row["run_id"] in wanted]
        found = cells.rows(store, **({"task": rows[0]["task"]} if rows else {}))
        return Results(rows, [as_json(row) for row in found if wanted & set(row.run_ids)])

    return index.use(home, read)


def of_cells(home: Home, methods: Sequence[str], tasks: Sequence[str]) -> Results:
    """The results of some methods on some tasks."""

    def read(store: Store) -> Results:
        runs = [row for row in _runs(store) if row["task"] in tasks]
        found = [row for task in tasks for row in cells.rows(store, task=task)]
        return Results(
            [row for row in runs if row["method"] in methods], [as_json(row) for row in found if row.method in methods]
        )

    return index.use(home, read)


def _published(task: str | None) -> list[Path]:
    if not PUBLISHED.is_dir():
        raise UserError("the published records come with a checkout of kdbench's repository, and this is none")
    return [PUBLISHED] if task is None else of_task(PUBLISHED, task)


def _runs(
    store: Store, task: str | None = None, method: str | None = None, of: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Rows of the runs, of these alone."""
    asked = [task, task, method, method, of, of]  # each twice, once for whether it is asked at all
    away = store.external_scores()
    return [_run(row, away.get(row["run_id"], {})) for row in store.query(_RUNS, asked)]


def _run(row: dict[str, Any], away: Mapping[str, float]) -> dict[str, Any]:
    params = json.loads(row.pop("params") or "{}")
    own = {f"{HP}{name}": value for name, value in _flat(params).items()}
    return row | own | {f"{ELSEWHERE}{name}": value for name, value in away.items()}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings within mappings as names with dots; lists stay."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type: numbers of any kind are floats, and where types differ all are JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or kinds & {dict, list}:
        return [None if value is None else json.dumps(value) for value in values]
    return list(values)
