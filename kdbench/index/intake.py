"""The lines by which the index takes in records and side files that are new and valid."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kdbench import identity
from kdbench.base.files import sha256
from kdbench.records import counted, settings
from kdbench.records.files import Problem, Record, RecordError, load, load_side, read_text
from kdbench.records.folder import File


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


def _counted(record: Record) -> dict[str, float] | None:
    """What follows from the builds of its measurement that count."""
    block = record.measured
    if block is None:
        return None
    found = counted.estimate(block)
    return {
        "step_ratio": found.ratio, "lo": found.lo, "hi": found.hi, "step_ms": found.method_ms,
        "plain_step_ms": found.plain_ms, "throughput_samples_s": 1000 * block.batch / found.method_ms,
    }  # fmt: skip


def _about(record: Record) -> dict[str, Any]:
    """What the index holds of a record beside the record's own fields."""
    on = record.ran_on
    own = {"device": on.device, "dtype": on.dtype, "counted": _counted(record)}
    return own | settings.known_by(record) | identity.known_by(record)
