"""Result records as files: read, check, write, upgrade, hash. One run is one immutable JSON file.

:func:`load` is the only way in and :func:`dump` the only way out; records of older versions pass through
:data:`UPGRADES` first. The fields are ``kdbench.records.schema``'s.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from kdbench.base.errors import UserError
from kdbench.base.fields import Part
from kdbench.base.files import canonical_json, sha256, write_atomic
from kdbench.base.privacy import privacy_problems, scrub, scrub_values, strings
from kdbench.records import shards
from kdbench.records.schema import SCHEMA_VERSION, Record, SideFile, Withdrawn

__all__ = [  # noqa: RUF022
    "MAX_BYTES", "Problem", "Record", "RecordError", "SIDE_FOLDER", "SideFile", "UPGRADES", "dump", "dump_side",
    "json_schema", "load", "load_side", "new_run_id", "now", "parse", "privacy_problems", "read_text", "scrub",
    "scrub_values", "side_of", "spec_hash", "to_json", "withdraw",
]  # fmt: skip

MAX_BYTES = 1_000_000
MAX_LINE = 500
SIDE_FOLDER = "verifications"
"""Name of the folders that hold side files, anywhere among the records."""
_CONSTANT = re.compile(r"[\s:,\[](NaN|-?Infinity)\b").search

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema version n to a function that makes the JSON form of a record of version n one of version n + 1."""

_Model = TypeVar("_Model", bound=Part)


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file: ``field`` is the dotted path in the record, empty for the file as a whole."""

    file: str
    field: str
    message: str
    level: Literal["error", "warning"] = "error"

    def __post_init__(self) -> None:
        for name in ("field", "message"):  # a key of a stranger's may hold anything, a problem is one line
            text = "".join(c if c.isprintable() else "\ufffd" for c in getattr(self, name))
            object.__setattr__(self, name, text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…")

    def __str__(self) -> str:
        return f"{self.file}: {self.field + ': ' if self.field else ''}{self.message}"


class RecordError(UserError):
    """A file that is no valid record; ``problems`` holds all that was found, the message the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        more = f" (and {len(problems) - 1} more; 'kdbench records validate' lists all)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")


def new_run_id() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def now() -> str:
    """The time in a record's form: RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Hash of all that decides what is computed: equal for all seeds and machines of one specification.

    Args:
        spec: method, variant, complete parameters, task and version, protocol and engine version, as JSON data; a
            record keeps it as ``provenance.config_resolved``.
    """
    return sha256(canonical_json(spec))


@functools.cache
def json_schema() -> Mapping[str, Any]:
    """JSON Schema (draft 2020-12) of a record."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}


def parse(raw: dict[str, Any], file: str = "record") -> Record:
    """A record from its JSON form; older versions are upgraded.

    Raises:
        RecordError: naming ``file`` and the fields.
    """
    raw = _upgraded(raw, file)
    return _validated(Record, raw, json.dumps(raw), file)


def load(path: Path) -> Record:
    """The record in a file whose name is its run id.

    Raises:
        RecordError: unreadable, cut off, too large, not finite, of a newer version, wrong in a field or misnamed.
    """
    text = read_text(path)
    found = _decoded(text, str(path))
    raw = _upgraded(found, str(path))
    record = _validated(Record, raw, text if raw is found else json.dumps(raw), str(path))
    _check_name(path, record.run_id)
    return record


def load_side(path: Path) -> SideFile:
    """The side file of a record, named like it.

    Raises:
        RecordError: as :func:`load`.
    """
    text = read_text(path)
    side = _validated(SideFile, _decoded(text, str(path)), text, str(path))
    _check_name(path, side.run_id)
    return side


def to_json(model: Record | SideFile) -> str:
    """The text of a file: sorted keys, one value a line, so that two records can be compared by eye."""
    return (
        json.dumps(model.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def side_of(path: Path) -> SideFile | None:
    """The side file of a record's file, None without a sound one beside it."""
    side = shards.beside(path) / SIDE_FOLDER / path.name
    try:
        return load_side(side) if side.is_file() else None
    except RecordError:
        return None


def withdraw(path: Path, reason: str) -> Path:
    """Takes a record back, in its side file; the record itself stays as it is.

    Returns:
        The side file.

    Raises:
        UserError: it was withdrawn before, or the record cannot be read.
    """
    record = load(path)
    folder = shards.beside(path) / SIDE_FOLDER
    before = load_side(folder / path.name) if (folder / path.name).is_file() else SideFile(run_id=record.run_id)
    if before.withdrawn is not None:
        raise UserError(f"{record.run_id} was withdrawn on {before.withdrawn.date}: {before.withdrawn.reason}")
    return dump_side(before.model_copy(update={"withdrawn": Withdrawn(date=now(), reason=scrub(reason))}), folder)


def dump(record: Record, folder: Path) -> Path:
    """Write ``<folder>/<run_id>.json`` whole or not at all; what could not be read back is not written.

    Raises:
        RecordError: the record breaks a rule that only shows in its JSON form (privacy, size, nesting).
        UserError: the folder cannot be written.
    """
    return _write(record, folder)


def dump_side(side: SideFile, folder: Path) -> Path:
    """Write ``<folder>/<run_id>.json``; ``folder`` is named ``verifications`` and lies beside or under the records.

    Raises:
        RecordError, UserError: as :func:`dump`.
    """
    return _write(side, folder)


def read_text(path: Path) -> str:
    """The text of a file that may be a record, or of one that is packed (:mod:`kdbench.records.shards`): UTF-8, not
    larger than a record can be.

    Raises:
        RecordError: naming the file, or the shard.
    """
    file = str(path)
    try:
        if shards.packed(path):
            return shards.text(path)
        if path.stat().st_size > MAX_BYTES:
            raise _error(file, f"larger than {MAX_BYTES} bytes: no record is; look at its curve and parameters")
        return path.read_bytes().decode()
    except shards.ShardError as error:
        raise _error(str(error.shard), error.what) from error
    except UnicodeDecodeError as error:
        raise _error(file, "is not UTF-8 text; restore it from its source or remove it") from error
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror or error}") from error


def _decoded(text: str, file: str) -> dict[str, Any]:
    try:
        raw = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        what = f"is not whole JSON ({error}); restore it from its source or remove it"
        if constant := _CONSTANT(text):
            what = f"holds {constant.group(1)}, which is no JSON number; a run that diverged has no metrics"
        raise _error(file, what) from None
    if not isinstance(raw, dict):
        raise _error(file, "holds no JSON object, so it is no record")
    return raw


def _upgraded(raw: dict[str, Any], file: str) -> dict[str, Any]:
    version = raw.get("schema_version")
    if type(version) is not int:
        raise _error(file, f"must be an integer, found {version!r}", "schema_version")
    if version > SCHEMA_VERSION:
        what = f"{version} is newer than {SCHEMA_VERSION}, which this kdbench reads; upgrade kdbench"
        raise _error(file, what, "schema_version")
    while version < SCHEMA_VERSION:
        if version not in UPGRADES:
            raise _error(file, f"{version} is too old to be read; run the cell again", "schema_version")
        version += 1
        raw = {**UPGRADES[version - 1](raw), "schema_version": version}
    return raw


def _validated(model: type[_Model], raw: dict[str, Any], text: str, file: str) -> _Model:
    """``raw``, whose JSON is ``text``, as a model, with every rule that is not a field's own checked too."""
    problems = []
    if "\\u0000" in text:
        problems += [Problem(file, field, "holds a NUL character") for field, item in strings(raw) if "\0" in item]
    for line in privacy_problems(raw):
        field, _, what = line.partition(": ")
        problems.append(Problem(file, field, what))
    try:
        valid = model.model_validate_json(text)
    except ValidationError as error:
        problems = [Problem(file, *_field_and_message(item)) for item in error.errors(include_url=False)] + problems
        raise RecordError(problems) from None
    if problems:
        raise RecordError(problems)
    return valid


def _field_and_message(item: Any) -> tuple[str, str]:
    """Field and message of one pydantic error; a rule over several fields names its field in the message."""
    field = ".".join(str(part) for part in item["loc"] if part not in {"quick", "full", "off"})
    message = str(item["msg"])
    if item["type"] == "value_error":
        message = message.removeprefix("Value error, ")
        if not item["loc"]:
            field, _, message = message.partition(": ")
    elif item["type"] == "extra_forbidden":
        message = "is not a field of a record"
    elif item["type"] == "missing":
        message = "is missing"
    else:
        message = f"{message[0].lower()}{message[1:]}, found {_short(item['input'])}"
    return field, message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_name(path: Path, run_id: str) -> None:
    if path.stem != run_id:
        raise _error(str(path), f"the file must be named {run_id}.json", "run_id")


def _error(file: str, message: str, field: str = "") -> RecordError:
    return RecordError([Problem(file, field, message)])


def _write(model: Record | SideFile, folder: Path) -> Path:
    path, text = folder / f"{model.run_id}.json", to_json(model)
    _validated(type(model), json.loads(text), text, str(path))
    if len(text.encode()) > MAX_BYTES:
        raise _error(str(path), f"would be larger than {MAX_BYTES} bytes; shorten its curve and parameters")
    write_atomic(path, text)
    return path
