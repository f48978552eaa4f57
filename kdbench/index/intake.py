"""Record and side files as folders hold them, and the lines by which the index takes in what is new and valid."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench import identity
from kdbench.base.errors import UserError
from kdbench.base.files import sha256
from kdbench.records import settings
from kdbench.records.files import SIDE_FOLDER, Problem, Record, RecordError, load, load_side, read_text


@dataclass(frozen=True)
class File:
    """A record or side file as the folder shows it; ``name`` is its path as text: 10,000 Paths are slow to make."""

    name: str
    run_id: str
    kind: str  # run or side
    size: int
    mtime_ns: int

    @property
    def path(self) -> Path:
        return Path(self.name)


def files_of(sources: Iterable[Path]) -> Iterator[File]:
    """Record and side files, in a fixed order."""
    for source in sources:
        if not source.exists():
            raise UserError(f"{source} does not exist; name a record or a folder of records")
        if source.is_file():
            yield _described(str(source.parent), source.name)
            continue
        for folder, inner, names in os.walk(source):
            inner.sort()
            for name in sorted(names):
                if name.endswith(".json") and name[0] != ".":
                    yield _described(folder, name)


def _described(folder: str, name: str) -> File:
    path, kind = os.path.join(folder, name), "side" if os.path.basename(folder) == SIDE_FOLDER else "run"
    try:
        status = os.stat(path)
    except OSError:
        return File(path, name.removesuffix(".json"), kind, -1, -1)  # reading it will say what is wrong
    return File(path, name.removesuffix(".json"), kind, status.st_size, status.st_mtime_ns)


def checked(
    files: Iterable[File], known: dict[tuple[str, str], tuple[int, int, str]], bad: list[Problem]
) -> tuple[list[str], list[File]]:
    """Spool lines of the valid new files, and the files whose content was in already; adds to ``bad``."""
    lines, same = [], []
    for file in files:
        try:
            digest = sha256(read_text(file.path))
            before = known.get((file.kind, file.run_id))
            if before is not None and before[2] == digest:
                same.append(file)
                continue
            if before is not None and file.kind == "run":
                what = "differs from the record taken in under this name; records are immutable: restore it or rebuild"
                bad.append(Problem(file.name, "", what))
                continue
            model = load(file.path) if file.kind == "run" else load_side(file.path)
        except RecordError as error:
            bad += error.problems
            continue
        except OSError as error:
            bad.append(Problem(file.name, "", f"cannot be read: {error.strerror or error}"))
            continue
        about = _about(model) if isinstance(model, Record) else {}
        head = json.dumps({"sha256": digest, "size": file.size, "mtime_ns": file.mtime_ns, **about})
        lines.append(f'{head[:-1]}, "doc": {model.model_dump_json()}}}\n')
    return lines, same


def _about(record: Record) -> dict[str, Any]:
    """What the index holds of a record beside the record's own fields."""
    on = record.ran_on
    return {"device": on.device, "dtype": on.dtype} | settings.known_by(record) | identity.known_by(record)
