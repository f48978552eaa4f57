"""Builds the board: records in, a folder of static files out."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kdbench import __version__
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256
from kdbench.base.home import Home
from kdbench.index.store import Store
from kdbench.leaderboard.model.board import Board, board
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.source import read
from kdbench.leaderboard.output.exports import write_checksums, write_exports
from kdbench.leaderboard.output.pages import (
    ITEMS,
    STUDENTS,
    copy_items,
    copy_records,
    copy_students,
    write_board,
    write_data,
    write_runs,
)
from kdbench.leaderboard.output.render import FOLDER, Pages, Site
from kdbench.leaderboard.views.facts import facts_of
from kdbench.leaderboard.views.panel import found_in
from kdbench.records.files import Problem
from kdbench.stats import STATISTICS_VERSION

SNAPSHOT = re.compile(r"\d{4}\.(0[1-9]|1[0-2])")
WEB = re.compile(r"https://[\w.-]+(/[\w.~+-]+)*/?")
"""An address that pages may link to."""
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
    records: Path,
    out: Path,
    *,
    built_at: datetime | None = None,
    catalogue: Catalogue | None = None,
    snapshot: str | None = None,
    repository: str = "",
    home: Home | None = None,
) -> BuildReport:
    """Render the board of a folder of records into ``out``, which is replaced whole or not at all.

    The same records, catalogue and time give the same bytes.

    Args:
        records: folder of records; one that does not exist gives an empty board.
        out: the site's folder; one that exists must have been made by this function.
        built_at: time printed on the pages; ``SOURCE_DATE_EPOCH``, else now.
        catalogue: cards and tasks; those installed.
        snapshot: also freeze the board under ``v/<snapshot>/``, a month such as ``2026.11``. Snapshots of earlier
            builds of ``out`` are carried over as they are.
        repository: address of the repository that the board is built from; pages link to it and to commits.
        home: whose searches of hyper-parameters are shown too, where no catalogue is given.

    Raises:
        UserError: the address is none of the web, the snapshot exists already or is no month, ``out`` is another
            program's folder or cannot be written, or a card or task file is malformed.
    """
    start = time.monotonic()
    out = out.absolute()
    _check_out(out)
    _check_snapshot(out, snapshot)
    if repository and not WEB.fullmatch(repository):
        raise UserError(f"--repository {repository}: give its address, such as https://example.org/you/kdbench")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {out}: {error.strerror}; name another --out") from error
    try:
        with Store.memory(*([records] if records.exists() else [])) as store:
            if (out / "v").is_dir():
                shutil.copytree(out / "v", staging / "v")
            whole = _Board.of(store, records, _time(built_at), catalogue or Catalogue.installed(home), repository)
            pages = whole.write(staging, snapshot)
        staging.chmod(0o755)
        _replace(staging, out)
    except OSError as error:
        raise UserError(
            f"cannot write the site to {out}: {error.strerror or error}; free some space or name another --out"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return BuildReport(pages, whole.site.records, whole.made.source.skipped, time.monotonic() - start)


@dataclass(frozen=True)
class _Board:
    """A board about to be written."""

    store: Store
    records: Path
    built_at: datetime
    made: Board
    site: Site

    @classmethod
    def of(cls, store: Store, records: Path, built_at: datetime, catalogue: Catalogue, repository: str) -> _Board:
        made = board(read(store), catalogue)
        runs = made.source.runs.values()
        states = sorted([r["record_sha256"], r["level"], r["verification_failed"], r["is_withdrawn"]] for r in runs)
        site = Site(
            kdbench=__version__,
            statistics=STATISTICS_VERSION,
            built=f"{built_at:%Y-%m-%d %H:%M} UTC",
            records=len(runs),
            snapshot_id=sha256(canonical_json([STATISTICS_VERSION, states]))[:12],
            local=not any(run["level"] > 0 for run in runs),
            repository=repository,
            facts=facts_of(made),
        )
        return cls(store, records, built_at, made, site)

    def write(self, out: Path, snapshot: str | None) -> int:
        """The board, with the list of snapshots that lie in ``out`` and the one that is asked for; counts the pages."""
        count = 0
        if snapshot is not None:
            frozen = replace(self.site, frozen=snapshot, runs="../../runs/")
            count += self._whole(out / "v" / snapshot, frozen, [])
        labels = sorted(path.name for path in (out / "v").glob("*") if SNAPSHOT.fullmatch(path.name))
        if labels:
            newest = Pages(out / "v" / "latest", self.site)
            newest.write("index.html", "moved.html", target=f"../{labels[-1]}/index.html", word=labels[-1])
        count += self._whole(out, self.site, labels)
        (out / MARKER).write_text("made by kdbench; replaced by the next build\n", encoding="utf-8")
        return count

    def _whole(self, out: Path, site: Site, labels: list[str]) -> int:
        """One complete board; a frozen one shares runs and records with the board it lies in."""
        pages = Pages(out, site)
        write_board(pages, self.made, self.store, self.built_at, found_in(self.records))
        write_exports(self.made, self.store, out / "data", site)
        if not site.frozen:
            kept = copy_items(self.records, out / ITEMS, self.made)
            write_runs(pages, self.made, self.store, kept, copy_students(self.records, out / STUDENTS))
            copy_records(self.records, out / "data" / "runs", self.made)
        write_checksums(out / "data")
        write_data(pages, self.made, site, labels)
        shutil.copytree(FOLDER / "static", out / "static", ignore=shutil.ignore_patterns(".*"))
        return pages.count


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


def _check_snapshot(out: Path, snapshot: str | None) -> None:
    if snapshot is not None and not SNAPSHOT.fullmatch(snapshot):
        raise UserError(f"snapshot {snapshot!r}: name it by year and month, such as 2026.11")
    if snapshot is not None and (out / "v" / snapshot).exists():
        raise UserError(f"snapshot {snapshot} is there already and snapshots never change; name a later month")


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
