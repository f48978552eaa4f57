"""Published records from files of their own into shards by task, and back, text for text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.records import examples, items, shards
from kdbench.records.beside import FOLDERS
from kdbench.records.files import SIDE_FOLDER, load, read_text
from kdbench.records.folder import listed, names, records_of
from kdbench.records.validate import check_folder

ROWS = 1000
"""Records of a shard at most: who reads one holds their texts in memory."""
SHARD = "records-{:04d}" + shards.SUFFIX


@dataclass(frozen=True)
class Packed:
    """What was done: the records now in shards that were files, the shards written, and all records there are."""

    records: int
    shards: tuple[Path, ...]
    all: int


def pack(folder: Path, at_least: int) -> Packed:
    """Moves the records of a folder of the published layout into new shards, a task's into its folder.

    What a killed call left is gone on with; shards that are there stay as they are.

    Args:
        at_least: nothing is done where the folder has fewer records.

    Raises:
        UserError: a record or side file is not valid, a record does not lie where the layout has it, or the folder
            cannot be written.
    """
    errors = [problem for problem in check_folder(folder) if problem.level == "error"]
    if errors:
        raise UserError(f"{errors[0]}: nothing was packed; 'kdbench records validate {folder}' lists all that is wrong")
    kept = records_of(folder)
    if len(kept) < at_least:
        return Packed(0, (), len(kept))
    tasks: dict[Path, list[Path]] = defaultdict(list)
    for path in kept:
        if not shards.packed(path):
            tasks[_task_folder(path, folder)].append(path)
    written = []
    for place, paths in tasks.items():
        ordered = sorted(paths, key=lambda path: path.stem)
        for start in range(0, len(ordered), ROWS):
            shard = next(one for number in count(1) if not (one := place / SHARD.format(number)).exists())
            shards.write(shard, {path.stem: read_text(path) for path in ordered[start : start + ROWS]})
            written.append(shard)
    gone = [path for path in map(Path, names(folder)) if not shards.packed(path) and path.parent.name != SIDE_FOLDER]
    now = {path.stem: path for path in records_of(folder)}
    for path in gone:
        _move_beside(path, shards.beside(now[path.stem]))
        path.unlink()
        _tidy(path.parent)
    return Packed(len(gone), tuple(written), len(kept))


def unpack(folder: Path) -> int:
    """Makes the records of all shards below a folder files again; their number.

    Raises:
        UserError: a shard cannot be read, or the folder cannot be written.
    """
    found = listed(folder)
    if found.bad:
        raise UserError(f"{found.bad[0]}: nothing was unpacked")
    packed = [file.path for file in found.files if file.packed]
    for path in packed:
        place = folder / load(path).published_path
        write_atomic(place, read_text(path))
        _move_beside(path, place.parent)
    for shard in sorted({path.parent for path in packed}):
        shard.unlink()
        for name in (SIDE_FOLDER, *FOLDERS):
            _tidy(shard.parent / name)
    return len(packed)


def _task_folder(path: Path, folder: Path) -> Path:
    place = folder / load(path).published_path
    if place != path:
        raise UserError(f"{path} does not lie where it is published, at {place}: nothing was packed; move it there")
    return place.parents[1]


def _beside(path: Path, folder: Path) -> Iterator[Path]:
    yield folder / SIDE_FOLDER / path.name
    yield folder / examples.FOLDER / f"{path.stem}.zip"
    yield folder / items.FOLDER / f"{path.stem}.parquet"


def _move_beside(path: Path, to: Path) -> None:
    """Moves a record's side file, examples and values of test rows to where its other form has them."""
    for old, new in zip(_beside(path, shards.beside(path)), _beside(path, to), strict=True):
        if old.is_file():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.replace(new)
            _tidy(old.parent)


def _tidy(folder: Path) -> None:
    """Removes a folder that is empty."""
    with suppress(OSError):
        folder.rmdir()
