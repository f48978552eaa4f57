"""The records of a home folder by specification, straight from the files: no index, no torch.

Whether a run is done is asked here and nowhere else, so that records count wherever they came from.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdbench.records import files as records
from kdbench.records import folder as of_folder
from kdbench.records.files import SIDE_FOLDER, Record, RecordError

_HASH = re.compile(r'"spec_hash":\s*"([0-9a-f]{64})"')
_seen: dict[str, frozenset[str]] = {}
"""File of a record to the specifications it names; records never change, so a process reads each once."""


def of(folder: Path, *spec_hashes: str) -> list[Record]:
    """Records of some specifications below a folder, oldest first; withdrawn and damaged ones do not count."""
    wanted = set(spec_hashes)
    found = [
        record for path in _records(folder) if _names(path) & wanted and (record := _sound(Path(path))) is not None
    ]
    return sorted((r for r in found if r.spec_hash in wanted), key=lambda record: (record.created_at, record.run_id))


def _records(folder: Path) -> list[str]:
    side = f"{os.sep}{SIDE_FOLDER}{os.sep}"
    return [path for path in of_folder.names(folder) if side not in path]


def _names(path: str) -> frozenset[str]:
    if path not in _seen:
        try:
            _seen[path] = frozenset(_HASH.findall(records.read_text(Path(path))))
        except RecordError:
            return frozenset()
    return _seen[path]


def _sound(path: Path) -> Record | None:
    try:
        side = records.side_of(path)
        return None if side is not None and side.withdrawn is not None else records.load(path)
    except RecordError:
        return None
