"""Teachers beside the published records: weights and facts by the hash of what made them, as a home keeps its own.

Two processors round otherwise, so a teacher that is trained anew is another one, and students of the two are never
compared. Who takes the published teacher joins the published rows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from kdbench.base.errors import UserError
from kdbench.base.files import sha256_file
from kdbench.base.home import Home
from kdbench.engine import teachers
from kdbench.engine.teachers import FACTS, WEIGHTS
from kdbench.records.files import Record
from kdbench.records.provenance import PUBLISHED

FOLDER = PUBLISHED.parent / "teachers"
LARGEST = 2_000_000
"""Bytes of weights that lie in the repository; larger ones are named as ``pair.teachers.<role>.weights``."""


def take(home: Home, folder: Path = FOLDER) -> int:
    """Puts every published teacher into a home that has none in its place; how many.

    Raises:
        UserError: none is published here, a published file is damaged, or the home has trained another teacher in the
            place of one.
    """
    published = sorted(path.parent for path in folder.glob(f"*/{WEIGHTS}"))
    if not published:
        raise UserError(f"no teacher is published in {folder}; leave --teachers out, or take a checkout that has them")
    taken = 0
    for source in published:
        put = _put(source, home)
        if put is None:
            raise UserError(
                f"{home.teachers / source.name} holds a teacher trained here, with other weights than the published "
                "one; name another --out, or leave --teachers out to go on with it"
            )
        taken += put
    return taken


def take_named(record: Record, home: Home, folder: Path = FOLDER) -> None:
    """Puts the published teachers that a record names into a home; one that was trained there stays.

    Raises:
        UserError: a published file is damaged.
    """
    named = {teacher.weights_sha256 for teacher in record.models.teachers}
    for source in sorted(path.parent for path in folder.glob(f"*/{WEIGHTS}")):
        if _digest(source) in named:
            _put(source, home)


def _digest(folder: Path) -> str:
    return str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["weights_sha256"])


def _put(source: Path, home: Home) -> bool | None:
    """Whether a home lacked a published teacher, which it has now; None where another is in its place."""
    digest, own = _digest(source), home.teachers / source.name
    if sha256_file(source / WEIGHTS) != digest:
        raise UserError(f"{source / WEIGHTS} is not what its facts say; restore it from the repository")
    own.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{own}.lock"):
        if (own / FACTS).is_file():
            return False if _digest(own) == digest else None
        with tempfile.TemporaryDirectory(prefix=".take-", dir=home.teachers) as scratch:
            whole = Path(scratch) / source.name
            shutil.copytree(source, whole)
            shutil.rmtree(own, ignore_errors=True)  # of a training that was killed
            whole.rename(own)
    return True


def publish(home: Home, records: Iterable[Record], folder: Path = FOLDER) -> list[Path]:
    """Copies the small teachers that some records name from a home to the published ones; the folders written."""
    named = {teacher.weights_sha256 for record in records for teacher in record.models.teachers}
    written = []
    for own, facts in teachers.kept(home):
        place, weights = folder / own.name, own / WEIGHTS
        wanted = facts["weights_sha256"] in named and weights.is_file() and weights.stat().st_size <= LARGEST
        if wanted and not place.exists() and sha256_file(weights) == facts["weights_sha256"]:
            place.mkdir(parents=True)
            for name in (FACTS, WEIGHTS):
                shutil.copyfile(own / name, place / name)
            written.append(place)
    return written
