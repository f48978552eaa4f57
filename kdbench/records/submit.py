"""Results on their way to the board: bundling them as a pull request, and what such a request may change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.records import beside
from kdbench.records.files import SIDE_FOLDER, Problem, Record, RecordError, load, read_text
from kdbench.records.folder import records_of
from kdbench.records.validate import check_folder


@dataclass(frozen=True)
class Bundle:
    """Records copied into a folder of the published layout.

    Attributes:
        added: paths written, relative to the folder.
        known: records that were there already.
        left_out: (record file, reason) of those that have no place on the board.
        problems: what the validator says of the new records, alone and beside those that were there.
    """

    added: tuple[Path, ...]
    known: int
    left_out: tuple[tuple[Path, str], ...]
    problems: tuple[Problem, ...]


def bundle(sources: Sequence[Path], folder: Path) -> Bundle:
    """Copies the records that may stand on the board to where a pull request has them, and validates the whole.

    Args:
        sources: record files, shards, or folders of them.
        folder: the published results, ``<task>@v<version>/<method>/<run_id>.json`` below it.

    Raises:
        UserError: a source does not exist, or there is no record in any.
    """
    files = records_of(*sources)
    if not files:
        raise UserError(f"no record in {', '.join(map(str, sources))}; run `kdbench evaluate` first")
    there = {path.stem for path in records_of(folder)} if folder.is_dir() else set()
    added: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    known = 0
    for path in files:
        if path.stem in there:
            known += 1
            continue
        try:
            record = load(path)
        except RecordError as error:
            left_out.append((path, str(error)))
            continue
        reason = _no_place(record)
        if reason is not None:
            left_out.append((path, reason))
            continue
        place = Path(record.published_path)
        write_atomic(folder / place, read_text(path))
        beside.carry(path, folder / place)
        added.append(place)
    new = {str(folder / place) for place in added}
    problems = tuple(problem for problem in check_folder(folder) if problem.file in new) if added else ()
    return Bundle(tuple(added), known, tuple(left_out), problems)


def _no_place(record: Record) -> str | None:
    """Why a record does not belong on the board, None if it does."""
    if record.smoke:
        return "a smoke run is never published"
    if (why := record.provenance.unclean) is not None:
        return f"{why}: nobody could repeat it; commit, then run it again with --force"
    if (other := record.task.other_data) is not None:
        return f"its data went by {other}: nothing shows that they are those the task names"
    return None


def changes(folder: Path, since: str) -> Iterator[Problem]:
    """What a pull request changes that a submission of results may not: anything but new records.

    Args:
        folder: the published results, in a git checkout.
        since: the commit or branch that the request is made against.

    Raises:
        UserError: git cannot compare with ``since``.
    """
    asked = ["git", "-C", str(folder), "diff", "--name-status", "--no-renames", "-z", f"{since}...HEAD"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["git failed"])[-1]
        raise UserError(f"cannot compare {folder} with {since}: {last}; fetch that branch first")
    top = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
    ).stdout.strip()
    words = told.stdout.split("\0")
    for kind, name in zip(words[::2], words[1::2], strict=False):
        path = Path(top) / name
        if not path.is_relative_to(folder.resolve()):
            yield Problem(name, "", "lies outside the published results; send other changes in a request of their own")
        elif kind != "A":
            what = "deleted" if kind == "D" else "changed"
            yield Problem(name, "", f"was {what}; records are immutable: add a new run, ask to withdraw the old one")
        elif path.parent.name in beside.FOLDERS and (path.parents[1] / f"{path.stem}.json").is_file():
            if (fault := beside.fault(path)) is not None:
                yield Problem(name, "", fault)
        elif path.parent.name == SIDE_FOLDER or path.suffix != ".json":
            yield Problem(name, "", "is no record; a submission adds <task>@v<version>/<method>/<run_id>.json alone")
