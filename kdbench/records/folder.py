"""What a folder of records holds, in whichever form: files of their own, and rows of shards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.records import items, shards
from kdbench.records.files import SIDE_FOLDER, Problem, RecordError, read_text


@dataclass(frozen=True)
class File:
    """A record or side file as the folder shows it; ``name`` is its path as text: 10,000 Paths are slow to make."""

    name: str
    run_id: str
    kind: str  # run or side
    size: int
    mtime_ns: int
    packed: bool = False

    @property
    def path(self) -> Path:
        return Path(self.name)


@dataclass(frozen=True)
class Listed:
    """The files of some sources in a fixed order, and the shards and copies that cannot stand."""

    files: tuple[File, ...]
    bad: tuple[Problem, ...]


def names(source: Path) -> Iterator[str]:
    """Paths of the records and side files below a folder or in a shard, as text, in a fixed order; no file is asked for
    its facts. Shards that cannot be read are passed over.
    """
    return (os.path.join(folder, name) for folder, name, _ in _entries(source, []))


def listed(*sources: Path) -> Listed:
    """Records and side files of folders, records, or shards. A record that is packed counts once.

    Raises:
        UserError: a source does not exist.
    """
    bad: list[Problem] = []
    found = [file for source in sources for file in _files(source, bad)]
    own: dict[str, File] = {}
    for file in found:
        if file.packed:
            own.setdefault(file.run_id, file)
    kept = [file for file in found if _counts(file, own, bad)]
    return Listed(tuple(kept), tuple(dict.fromkeys(bad)))


def records_of(*sources: Path) -> list[Path]:
    """The paths of the records alone, of either form; what :func:`listed` calls bad is left out.

    Raises:
        UserError: a source does not exist.
    """
    return [file.path for file in listed(*sources).files if file.kind == "run"]


def of_task(results: Path, task: str) -> list[Path]:
    """The folders of a task below the published results, one of each version (``Record.published_path``): all tasks
    together take half a minute to read.
    """
    return sorted(results.glob(f"{task.replace('/', '__')}@v*"))


def one_of(run: str, *folders: Path) -> Path:
    """The record that is meant by its file, or by its run id or enough of the beginning of it.

    Args:
        folders: where run ids are looked for; one that does not exist holds none.

    Raises:
        UserError: there is none, or there are several.
    """
    path = Path(run).expanduser()
    if is_record(path):
        return path
    if not run or os.sep in run or path.suffix:
        raise UserError(f"{run!r}: no such file; give a run id, the beginning of one, or a record's file")
    found = sorted(one for one in records_of(*filter(Path.is_dir, folders)) if one.stem.startswith(run))
    if len(found) != 1:
        where, some = ", ".join(map(str, folders)), ", ".join(one.stem[:12] for one in found[:3])
        ids = f" ({some}{', ...' if len(found) > 3 else ''})" if found else ""
        raise UserError(
            f"{len(found) or 'no'} runs in {where} begin with {run!r}{ids}; `kdbench results --json` lists run ids, "
            "--out names another home folder"
        )
    return found[0]


def is_record(path: Path) -> bool:
    """Whether a path is a file's, or that of a row of a shard."""
    if not shards.packed(path):
        return path.is_file()
    return any(row.run_id == path.stem for row in shards.rows(path.parent))


def _files(source: Path, bad: list[Problem]) -> Iterator[File]:
    if source.is_file() and source.suffix != shards.SUFFIX:
        yield _described(str(source.parent), source.name)
    elif shards.packed(source):
        yield from (file for file in _files(source.parent, bad) if file.path == source)
    elif source.exists():
        for folder, name, row in _entries(source, bad):
            yield _described(folder, name) if row is None else _of_row(folder, name, row)
    else:
        raise UserError(f"{source} does not exist; name a record or a folder of records")


def _entries(source: Path, bad: list[Problem]) -> Iterator[tuple[str, str, shards.Row | None]]:
    """Folder, name in it, and the row of what is packed."""
    if source.is_file():
        yield from _packed(source, bad)
        return
    for folder, inner, found in os.walk(source):
        inner.sort()
        for name in sorted(found):
            if name[0] == ".":
                continue
            if name.endswith(".json"):
                yield folder, name, None
            elif name.endswith(shards.SUFFIX) and os.path.basename(folder) != items.FOLDER:
                yield from _packed(Path(folder, name), bad)


def _packed(shard: Path, bad: list[Problem]) -> Iterator[tuple[str, str, shards.Row]]:
    try:
        found = shards.rows(shard)
    except shards.ShardError as error:
        bad.append(Problem(str(error.shard), "", error.what))
        return
    for row in found:
        yield str(shard), f"{row.run_id}.json", row


def _described(folder: str, name: str) -> File:
    path, kind = os.path.join(folder, name), "side" if os.path.basename(folder) == SIDE_FOLDER else "run"
    try:
        status = os.stat(path)
    except OSError:
        return File(path, name.removesuffix(".json"), kind, -1, -1)  # reading it will say what is wrong
    return File(path, name.removesuffix(".json"), kind, status.st_size, status.st_mtime_ns)


def _of_row(shard: str, name: str, row: shards.Row) -> File:
    return File(os.path.join(shard, name), row.run_id, "run", row.size, row.mtime_ns, packed=True)


def _counts(file: File, own: dict[str, File], bad: list[Problem]) -> bool:
    """Whether a file is no other form of a packed record; one of another content is bad."""
    first = own.get(file.run_id)
    if file.kind == "side" or first is None or first == file:
        return True
    try:
        if read_text(file.path) != read_text(first.path):
            what = f"differs from {first.name}; records are immutable: one of the two must go"
            bad.append(Problem(file.name, "run_id", what))
    except RecordError as error:
        bad += error.problems
    return False
