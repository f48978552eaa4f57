"""Answers to a few test pictures, kept beside a record to be looked at: a zip of the pictures and one list of marks.

Nothing that is counted depends on them. They lie in :data:`FOLDER` beside the record, named like it.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from kdbench.base.files import write_atomic
from kdbench.kinds.base import Mark
from kdbench.records import shards

FOLDER = "examples"
LIST = "examples.json"
MAX_BYTES = 2_000_000
PNG = b"\x89PNG\r\n\x1a\n"


@checked(frozen=True)
class Example:
    """A test picture, what is on it and what a network found.

    Attributes:
        row: of the test part.
        picture: name of its PNG in the zip.
        width, height: of it, in pixels.
    """

    row: Annotated[int, Field(ge=0)]
    picture: Annotated[str, Field(pattern=r"^[0-9]+\.png$")]
    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    truth: tuple[Mark, ...]
    found: tuple[Mark, ...]


@dataclass(frozen=True)
class Examples:
    """Those of a run.

    Attributes:
        names: of the classes, None where numbers are all there is.
        pictures: PNG by name.
    """

    names: tuple[str, ...] | None
    examples: tuple[Example, ...]
    pictures: dict[str, bytes]


_LIST = TypeAdapter(tuple[Example, ...])


def path_of(record: Path) -> Path:
    """Where the examples of a record's file lie."""
    return shards.beside(record) / FOLDER / f"{record.stem}.zip"


def dump(found: Examples, path: Path) -> None:
    """Writes them whole or not at all; equal examples give equal bytes."""
    body = {"names": found.names, "examples": [asdict(one) for one in found.examples]}
    files = {LIST: json.dumps(body, sort_keys=True).encode(), **found.pictures}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    write_atomic(path, stream.getvalue())


def load(path: Path) -> Examples | None:
    """Examples of a file; None where there is none, or it is not what :func:`dump` writes."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > MAX_BYTES:
                return None
            body = json.loads(packed.read(LIST))
            examples = _LIST.validate_python(body["examples"])
            pictures = {one.picture: packed.read(one.picture) for one in examples}
        names = None if body["names"] is None else tuple(map(str, body["names"]))
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile, ValidationError):
        return None
    return Examples(names, examples, pictures) if all(png.startswith(PNG) for png in pictures.values()) else None
