"""What decides a run's result beside its specification, seed and device class: content, never names. Needs no torch.

A run is known by all of it: a record answers for a run only where nothing of it has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256_file
from kdbench.identity import sourcecode
from kdbench.models.origin import weight_files
from kdbench.records.files import Record
from kdbench.records.schema import Identity
from kdbench.specs.config import RunConfig
from kdbench.specs.task import TaskSpec

UNRELEASED = "+"
"""What stands between a version and the digest of code that was not released under it."""
_WEIGHTS_FROM_TEACHERS = "pair.teachers."


@dataclass(frozen=True)
class RowsRead:
    """The rows of a run.

    Attributes:
        whole: digest of all rows, their normalisation and geometry.
        parts: of ``train`` and ``test``, the digest that a record's ``task.data`` holds.
    """

    whole: str
    parts: Mapping[str, str]


def of(config: RunConfig, data: str | None = None) -> Identity:
    """The identity of a configuration's runs, by the code and the files that are here now.

    Args:
        data: digest of the rows, None where they were not read.

    Raises:
        UserError: a file of weights cannot be read.
    """
    taught = reads_teachers(config)
    pair = config.task.pair
    nets = [pair.student.net, *(teacher.net for teacher in pair.teachers.values() if taught), *config.method.nets()]
    return Identity(
        code=sourcecode.of_method(config.method), nets=sourcecode.of_nets(nets), data=data,
        weights=of_weights(config.task, taught),
    )  # fmt: skip


def of_artefacts(config: RunConfig, data: str) -> Identity:
    """The identity of what a method keeps for all students of a task: nothing of student or inner method is in it."""
    own = of(config, data)
    student = config.task.pair.student.net
    taught = {*config.method.nets(), *(teacher.net for teacher in config.task.pair.teachers.values())}
    name = config.method.ref.card.name
    return Identity(
        code={name: own.code[name]},
        nets={net: code for net, code in own.nets.items() if net != student or net in taught},
        data=data,
        weights={key: sha for key, sha in own.weights.items() if key.startswith(_WEIGHTS_FROM_TEACHERS)},
    )


def reads_teachers(config: RunConfig) -> bool:
    """Whether the method, or the one inside it, reads a teacher, by their cards, or its student is cut out of one."""
    if config.task.pair.student.pruned_from is not None:
        return True
    own = config.method.ref.needs
    inner = config.method.inner.ref.needs if config.method.inner is not None else []
    return any("teacher" in words.split() for words in (*own, *inner))


def of_weights(spec: TaskSpec, taught: bool = True) -> dict[str, str]:
    """Key of a task to the hash of the file of weights that it names.

    Args:
        taught: whether those of teachers count.

    Raises:
        UserError: a file is not there, or cannot be read.
    """
    files = weight_files(spec)
    wanted = {key: path for key, path in files.items() if taught or not key.startswith(_WEIGHTS_FROM_TEACHERS)}
    return {key: _hashed(path, key) for key, path in sorted(wanted.items())}


def _hashed(path: Path, key: str) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        what = "no weights at" if isinstance(error, FileNotFoundError) else f"{error.strerror or error}:"
        raise UserError(f"{key}: {what} {str(path)!r}; name a file, 'hub:<id>' or 'own'") from error


def changes(record: Record, now: Identity, version: str, rows: RowsRead | None = None) -> list[str]:
    """What decides the result and is otherwise now than it was for a record of the same specification, in words.

    A record that keeps no identity is of the released code of its versions; what its weights files held is not known.

    Args:
        version: of the method's card.
        rows: those that the run would read, None to leave them out.
    """
    name = record.method.name
    was = _settled(record.identity) if record.identity is not None else _before(record, now)
    found = [f"the code of {key}" for key in _differ(was.code, now.code) if key != name]
    if record.method.adapter_version != version:
        found.append(f"the version of {name} ({record.method.adapter_version}, now {version})")
    elif was.code.get(name) != now.code[name]:
        found.append(f"the code of {name}")
    found += [f"the code of the net {key}" for key in _differ(was.nets, now.nets)]
    found += [f"the file of {key}" for key in _differ(was.weights, now.weights)]
    return found + (["the data"] if rows is not None and other_rows(record, rows) else [])


def _settled(found: Identity) -> Identity:
    code, nets = sourcecode.settled(found.code), sourcecode.settled(found.nets, nets=True)
    return found.model_copy(update={"code": code, "nets": nets})


def _before(record: Record, now: Identity) -> Identity:
    """What a record stands for that was made before identities were kept."""
    code, nets = ({key: found.partition(UNRELEASED)[0] for key, found in of.items()} for of in (now.code, now.nets))
    return Identity(code={**code, record.method.name: record.method.adapter_version}, nets=nets)


def _differ(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]


def other_rows(record: Record, rows: RowsRead) -> bool:
    """Whether a record is of other rows, or saw them otherwise; old records do not say how they were seen."""
    if record.identity is not None and record.identity.data is not None:
        return record.identity.data != rows.whole
    return any(rows.parts.get(used.split) != used.sha256 for used in record.task.data)


def differences(record: Record, environment: Mapping[str, Any]) -> Iterator[str]:
    """What the recorded environment has otherwise than this one, a line each."""
    then = record.environment.model_dump(mode="json")
    for key in ("torch", "cuda", "cudnn", "python", "cpu", "gpu", "threads"):
        if then[key] != environment[key]:
            yield f"{key} was {then[key]}, is {environment[key]}"
    for name, version in then["packages"].items():
        if environment["packages"].get(name) != version:
            yield f"{name} was {version}, is {environment['packages'].get(name, 'not installed')}"


def known_by(record: Record) -> dict[str, str | None]:
    """What the index keeps of a record's identity, to tell cells apart.

    Returns:
        ``identity``: all of it as text, None of a record that keeps none; ``student_code``: code of the student's net
        that was not released; ``data``, ``data_sha256``, ``test_sha256``: name of the rows, digest of all of them with
        normalisation and geometry, digest of the rows scored.
    """
    found = _settled(record.identity) if record.identity is not None else None
    test = next((used for used in record.task.data if used.split == "test"), None)
    student = found.nets.get(record.models.student.arch, "") if found is not None else ""
    return {
        "identity": canonical_json(found.model_dump(mode="json")) if found is not None else None,
        "student_code": student.partition(UNRELEASED)[2],
        "data": test.name if test is not None else None,
        "data_sha256": found.data if found is not None else None,
        "test_sha256": test.sha256 if test is not None else None,
    }
