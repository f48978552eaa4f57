"""Deployed students beside the published records: weights by the hash that records name, to be scored again.

They lie in a folder beside the records', each named ``<export_sha256>.safetensors``. A record whose weights are not
there is whole: they were large, or their home is gone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.files import sha256_file
from kdbench.base.home import Home
from kdbench.records.files import Record, read_text
from kdbench.records.folder import records_of

FOLDER = "students"
"""Beside the folder of published records."""
LARGEST = 500_000
"""Bytes of weights that lie in the repository."""


def beside(records: Path) -> Path:
    """Where the students of a folder of published records lie."""
    return records.parent / FOLDER


def publish(home: Home, records: Path) -> list[Path]:
    """Copies the small students of a home that published records name, its own runs' or repeats' of the same bits.

    Returns:
        The files written.
    """
    small = [path for path in sorted(home.students.glob("*.safetensors")) if path.stat().st_size <= LARGEST]
    own = {sha256_file(path): path for path in small}
    written = []
    for digest in sorted(own.keys() & set(_named(records))):
        place = beside(records) / f"{digest}.safetensors"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(own[digest], place)
            written.append(place)
    return written


def _named(records: Path) -> Iterator[str]:
    """The hashes of weights that some records name."""
    for path in records_of(records):
        deploy = json.loads(read_text(path)).get("deploy") or {}
        if digest := deploy.get("export_sha256"):
            yield digest


def find(digest: str | None, records: Path) -> Path | None:
    """The file of a record's ``deploy.export_sha256``; None where it is not published, or damaged."""
    path = beside(records) / f"{digest}.safetensors"
    return path if digest is not None and path.is_file() and sha256_file(path) == digest else None


def of(record: Record, records: Path) -> Path:
    """The published weights of a record's student.

    Raises:
        UserError: there are none.
    """
    found = find(record.deploy.export_sha256 if record.deploy is not None else None, records)
    if found is None:
        raise UserError(
            f"the weights of {record.run_id} are not in {beside(records)}; name a file of them, or run it again with "
            "--rerun"
        )
    return found
