"""Builds the board: records in, a folder of static files out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kdbench import __version__
from kdbench.errors import UserError
from kdbench.files import canonical_json, sha256
from kdbench.leaderboard.catalogue import Catalogue
from kdbench.leaderboard.ranking import Board, board
from kdbench.leaderboard.render import FOLDER, Pages, Site
from kdbench.leaderboard.run_view import run_view
from kdbench.leaderboard.source import read
from kdbench.leaderboard.suite_view import suite_view
from kdbench.leaderboard.task_view import task_view
from kdbench.record import Problem
from kdbench.stats import STATISTICS_VERSION
from kdbench.store import Store

MARKER = ".kdbench-site"
"""File that says a folder was made here, so that it may be replaced."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        pages: HTML pages written.
        records: records on the board.
        skipped: files that are no valid record, and why.
        seconds: wall time.
    """

    pages: int
    records: int
    skipped: tuple[Problem, ...]
    seconds: float


def build(
    records: Path, out: Path, *, built_at: datetime | None = None, catalogue: Catalogue | None = None
) -> BuildReport:
    """Render the board of a folder of records into ``out``, which is replaced whole or not at all.

    The same records, catalogue and time give the same bytes.

    Args:
        records: folder of records; one that does not exist gives an empty board.
        out: the site's folder; one that exists must have been made by this function.
        built_at: time printed on the pages; ``SOURCE_DATE_EPOCH``, else now.
        catalogue: cards and tasks; those installed.

    Raises:
        UserError: ``out`` is another program's folder or cannot be written, or a card or task file is malformed.
    """
    start = time.monotonic()
    out = out.absolute()
    _check_out(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {out}: {error.strerror}; name another --out") from error
    try:
        with Store.memory(*([records] if records.exists() else [])) as store:
            report = _render(store, staging, _time(built_at), catalogue or Catalogue.installed())
        staging.chmod(0o755)
        _replace(staging, out)
    except OSError as error:
        raise UserError(
            f"cannot write the site to {out}: {error.strerror or error}; free some space or name another --out"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return BuildReport(report[0], report[1], report[2], time.monotonic() - start)


def _render(store: Store, out: Path, built_at: datetime, catalogue: Catalogue) -> tuple[int, int, tuple[Problem, ...]]:
    source = read(store)
    made = board(source, catalogue)
    hashes = sorted(row["record_sha256"] for row in source.runs.values())
    site = Site(
        kdbench=__version__,
        statistics=STATISTICS_VERSION,
        built=f"{built_at:%Y-%m-%d %H:%M} UTC",
        records=len(source.runs),
        snapshot_id=sha256(canonical_json([STATISTICS_VERSION, hashes]))[:12],
        local=not any(row["level"] > 0 for row in source.runs.values()),
    )
    pages = Pages(out, site)
    _index(pages, made)
    _tasks(pages, made, store)
    _runs(pages, made, store)
    shutil.copytree(FOLDER / "static", out / "static", ignore=shutil.ignore_patterns(".*"))
    (out / MARKER).write_text("made by kdbench; replaced by the next build\n", encoding="utf-8")
    return pages.count, len(source.runs), source.skipped


def _index(pages: Pages, made: Board) -> None:
    others = [(t, t.unranked_because or "not ranked") for t in made.tasks if t.newest and not t.ranked]
    pages.write("index.html", "index.html", title="Board", suites=[suite_view(s) for s in made.suites], others=others)


def _tasks(pages: Pages, made: Board, store: Store) -> None:
    example = {}
    for run in made.source.runs.values():
        if not run["custom"] and not run["own_protocol"] and not run["smoke"]:
            example.setdefault((run["task"], run["task_version"]), run["run_id"])
    for task in made.tasks:
        run_id = example.get((task.name, task.version))
        view = task_view(made, task, store.record(run_id) if run_id else None)
        pages.write(f"tasks/{task.slug}.html", "task.html", title=f"{task.title} ({task.label})", **vars(view))


def _runs(pages: Pages, made: Board, store: Store) -> None:
    source = made.source
    for run_id, run in source.runs.items():
        record = store.record(run_id)
        assert record is not None
        view = run_view(record, run, source.verifications.get(run_id, []), source.withdrawn.get(run_id))
        pages.write(
            f"runs/{run_id}.html", "run.html", title=f"{run['method']} on {run['task']}, seed {run['seed']}", **view
        )
        path = pages.out / "data" / "runs" / f"{run_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _time(built_at: datetime | None) -> datetime:
    if built_at is not None:
        return built_at.astimezone(UTC)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return datetime.now(UTC)
    if not epoch.isdecimal():
        raise UserError(f"SOURCE_DATE_EPOCH={epoch!r} is no number of seconds; unset it or give one")
    return datetime.fromtimestamp(int(epoch), UTC)


def _check_out(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder; name another --out for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise UserError(f"{out} holds files that kdbench did not make; name another --out, or an empty folder")


def _replace(staging: Path, out: Path) -> None:
    """Put the new site in place of the old one, which is removed only once the new one stands."""
    if not out.exists():
        os.replace(staging, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.replace(out, old / "site")
    try:
        os.replace(staging, out)
    except OSError:
        os.replace(old / "site", out)
        raise
    shutil.rmtree(old, ignore_errors=True)
