"""Records of other machines, copied into a home folder: they stay when the folder they came from goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdbench.base.files import write_atomic
from kdbench.base.home import Home
from kdbench.records import beside
from kdbench.records.files import SIDE_FOLDER, Problem, RecordError, dump_side, load, load_side, read_text
from kdbench.records.folder import listed, records_of


@dataclass(frozen=True)
class Intake:
    """What was copied: number of records, and files that were not, with the reason."""

    copied: int
    bad: tuple[Problem, ...]


def take_in(source: Path, home: Home) -> Intake:
    """Copies the records and side files in ``source`` to the home's records; what is there already stays.

    Args:
        source: a record, a shard, or a folder of records, looked through to the bottom.

    Raises:
        UserError: there is no such file or folder, or the home cannot be written.
    """
    found = listed(source)
    if source.resolve() == home.records.resolve():
        return Intake(0, ())
    there = {path.stem: path for path in records_of(home.records)} if home.records.is_dir() else {}
    copied, bad = 0, list(found.bad)
    for file in sorted(found.files, key=lambda file: file.kind):  # records, then side files
        path = file.path
        try:
            if file.kind == "side":
                _take_side(path, home)
            elif path.stem not in there:
                load(path)
                write_atomic(home.records / path.name, read_text(path))
                beside.carry(path, home.records / path.name)
                there[path.stem] = path
                copied += 1
            elif read_text(path) != read_text(there[path.stem]):
                what = f"differs from {there[path.stem]}, which stays: records are immutable"
                bad.append(Problem(str(path), "run_id", what))
        except RecordError as error:
            bad += error.problems
    return Intake(copied, tuple(dict.fromkeys(bad)))


def _take_side(path: Path, home: Home) -> None:
    """What was learnt of a record there is added to what was learnt here."""
    theirs, folder = load_side(path), home.records / SIDE_FOLDER
    own = folder / path.name
    if own.is_file():
        ours = load_side(own)
        more = tuple(item for item in theirs.verifications if item not in ours.verifications)
        withdrawn = ours.withdrawn or theirs.withdrawn
        merged = ours.model_copy(update={"verifications": ours.verifications + more, "withdrawn": withdrawn})
        if merged == ours:
            return
        theirs = merged
    dump_side(theirs, folder)
