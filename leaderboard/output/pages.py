"""Every page of the board, from the board's views."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from pathlib import Path

from kdbench.base.files import sha256
from kdbench.index.store import Store
from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.output.citation import bibtex
from kdbench.leaderboard.output.render import Pages, Site
from kdbench.leaderboard.output.schema_docs import schema_rows
from kdbench.leaderboard.tables.cells import LEVEL_MARKS, LEVELS
from kdbench.leaderboard.tables.columns import generic_heads
from kdbench.leaderboard.views.changes import Change, changes, feed
from kdbench.leaderboard.views.facts import REFERENCE
from kdbench.leaderboard.views.glance import glance
from kdbench.leaderboard.views.method import method_view
from kdbench.leaderboard.views.overview import cost_tables, coverage_tables, pair_tables, quantiles
from kdbench.leaderboard.views.run import run_view
from kdbench.leaderboard.views.suite import by_answer, suite_view
from kdbench.leaderboard.views.task import task_view
from kdbench.records import beside, students
from kdbench.records.files import RecordError, read_text
from kdbench.records.folder import records_of
from kdbench.results.beside import Told
from kdbench.specs.tuned import AS_PUBLISHED

CHANGES_SHOWN = 1000
_BATCH = 250
"""Records in memory at a time."""
_FILES = {
    "leaderboard.csv": "every cell, a line each: ranks, scores, differences, costs",
    "leaderboard.json": "the same, with scores by seed",
    "runs.parquet": "every run with its whole record",
    "runs.csv": "every run, without the record",
    "citations.bib": "the methods’ papers",
    "datacite.json": "who made the board, under which licence and of what: metadata for a DOI",
    "schema/record-v1.json": "JSON Schema of a record",
}
_QUERIES = (
    (
        "Mean score and spread of every cell",
        "SELECT task, method, ruleset, device_class, count(*) AS n, avg(score) AS mean, stddev_samp(score) AS sd\n"
        "FROM 'runs.parquet' WHERE status = 'ok' AND NOT custom AND NOT smoke GROUP BY ALL ORDER BY task, mean DESC;",
    ),
    (
        "Step-time ratios, dearest first",
        "SELECT task, method, device_class, step_ratio, lo, hi FROM 'runs.parquet'\n"
        "WHERE measured_by = run_id ORDER BY step_ratio DESC;",
    ),
    (
        "AP or IoU of each class",
        "SELECT task, method, seed, c.key AS class, c.value FROM (\n"
        "  SELECT task, method, seed, unnest(map_entries(from_json(record->'$.metrics.classes',\n"
        "    '\"MAP(VARCHAR, DOUBLE)\"'))) AS c FROM 'runs.parquet');",
    ),
    (
        "Any field of the records",
        "SELECT method, seed, record->>'$.environment.cpu' AS cpu, record->'$.method.params' AS params\n"
        "FROM 'runs.parquet' WHERE task = 'digits/few-shot';",
    ),
)


EXAMPLES, ITEMS, STUDENTS = "data/examples", "data/items", "data/students"
"""Where the pictures of panels lie, what metrics are of each test row, and weights of students."""


def write_board(pages: Pages, made: Board, store: Store, built_at: datetime, kept: Mapping[str, Path]) -> None:
    """All pages except those of runs and of data; ``kept``: run id to the file of its examples."""
    current = [task for task in made.tasks if task.newest and not task.ranked]
    others = [(task, task.unranked_because or "not ranked") for task in current]
    run = {one.task for one in made.task_boards}
    waiting = [task for task in made.tasks if task.newest and task.ranked and task not in run]
    found = changes(made.source)
    years = {name: of.year for name, of in pages.site.facts.items() if of.family != REFERENCE}
    suites = [suite_view(suite, years, local=pages.site.local) for suite in by_answer(made.suites)]
    pages.write(
        "index.html", "index.html", title="Board", suites=suites, others=others, waiting=waiting,
        last=found[0] if found else None, glance=glance(suites),
    )  # fmt: skip
    _tasks(pages, made, store, kept)
    for name in made.methods:
        pages.write(f"methods/{name}.html", "method.html", title=name, **vars(method_view(made, name)))
    pages.write("overhead.html", "overhead.html", title="Overhead", tables=cost_tables(made))
    pages.write("coverage.html", "coverage.html", title="Coverage", tables=coverage_tables(made))
    pages.write("compare.html", "compare.html", title="Compare", tables=pair_tables(made), quantiles=quantiles())
    levels = list(zip(LEVEL_MARKS, LEVELS, strict=True))
    pages.write("methodology.html", "methodology.html", title="Methodology", heads=generic_heads(), levels=levels)
    pages.write("submit.html", "submit.html", title="Submit")
    _changelog(pages, found, built_at)


def write_runs(pages: Pages, made: Board, store: Store, kept: Collection[str], weights: Collection[str]) -> None:
    """A page for every run; few records are in memory at a time.

    Args:
        kept: runs whose values of test rows are there.
        weights: hashes of the students that are there.
    """
    source = made.source
    order = list(source.runs)
    for start in range(0, len(order), _BATCH):
        batch = [order[start : start + _BATCH]]
        measured = store.overheads(batch[0])
        for row in store.query("SELECT run_id, record FROM runs WHERE run_id IN (SELECT unnest(?))", batch):
            run_id, run = row["run_id"], source.runs[row["run_id"]]
            checks, withdrawn = source.verifications.get(run_id, []), source.withdrawn.get(run_id)
            found = json.loads(row["record"])
            view = run_view(found, run, checks, withdrawn, source.runs.keys(), measured.get(run_id))
            view["items"] = f"{ITEMS}/{run_id}.parquet" if run_id in kept else ""
            digest = (found["deploy"] or {}).get("export_sha256")
            view["weights"] = f"{STUDENTS}/{digest}.safetensors" if digest in weights else ""
            title = f"{run['method']} on {run['task']}, seed {run['seed']}"
            pages.write(f"runs/{run_id}.html", "run.html", title=title, **view)


def copy_records(records: Path, folder: Path, made: Board) -> None:
    """The records as they were submitted, byte for byte, so that their published hashes hold."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in records_of(records) if records.exists() else ():
        run = made.source.runs.get(path.stem)
        with suppress(RecordError):  # a damaged copy of one that is whole elsewhere
            if run is not None and sha256(content := read_text(path)) == run["record_sha256"]:
                (folder / path.name).write_bytes(content.encode())


def copy_items(records: Path, folder: Path, made: Board) -> set[str]:
    """What is kept of each test row of the runs on the board, where it is the records' own; the runs that have it."""
    there = beside.Items(records)
    copied = set()
    for run, path in there.files.items():
        if run in made.source.runs and there.of(run) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).write_bytes(path.read_bytes())
            copied.add(run)
    return copied


def copy_students(records: Path, folder: Path) -> set[str]:
    """The published weights of students; their hashes."""
    there = {path.stem for path in students.beside(records).glob("*.safetensors")}
    found = {digest: path for digest in there if (path := students.find(digest, records)) is not None}
    for digest, path in sorted(found.items()):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{digest}.safetensors").write_bytes(path.read_bytes())
    return set(found)


def write_data(pages: Pages, made: Board, site: Site, snapshots: Sequence[str]) -> None:
    """The page of downloads, once they are there."""
    folder = pages.out / "data"
    files = [(path, what, f"{(folder / path).stat().st_size / 1000:.1f}") for path, what in _FILES.items()]
    pages.write(
        "data.html",
        "data.html",
        title="Data",
        files=files,
        api=sorted(path.name for path in (folder / "api" / "v1").glob("*.json")),
        tables=sorted(path.relative_to(folder).as_posix() for path in folder.glob("tables/*.tex")),
        queries=_QUERIES,
        snapshots=[] if site.frozen else sorted(snapshots, reverse=True),
        cite=bibtex(made, site),
        schema=schema_rows(),
    )


def _tasks(pages: Pages, made: Board, store: Store, kept: Mapping[str, Path]) -> None:
    example: dict[tuple[str, int], str] = {}
    for run in made.source.runs.values():
        if run["ruleset"] == AS_PUBLISHED and not run["custom"] and not run["own_protocol"] and not run["smoke"]:
            example.setdefault((run["task"], run["task_version"]), run["run_id"])
    told = Told.classes(store)
    for task in made.tasks:
        run_id = example.get((task.name, task.version))
        view = task_view(made, task, store.record(run_id) if run_id else None, kept, told)
        for name, png in (file for one in view.boards if one.panel for file in one.panel.files.items()):
            (pages.out / EXAMPLES).mkdir(parents=True, exist_ok=True)
            (pages.out / EXAMPLES / name).write_bytes(png)
        pages.write(
            f"tasks/{task.slug}.html",
            "task.html",
            title=f"{task.title} ({task.label})",
            pictures=EXAMPLES,
            **vars(view),
        )


def _changelog(pages: Pages, found: Sequence[Change], built_at: datetime) -> None:
    days = [(day, list(items)) for day, items in groupby(found[:CHANGES_SHOWN], key=lambda change: change.day)]
    more = max(0, len(found) - CHANGES_SHOWN)
    pages.write("changelog.html", "changelog.html", title="Changes", days=days, more=more)
    if not pages.site.frozen:
        (pages.out / "feed.xml").write_text(feed(found, built_at), encoding="utf-8")
