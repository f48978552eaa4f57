"""Result files in COCO's form: what a run's network finds on its test pictures, and the score of such a file.

``image_id`` is the place of a picture among the test pictures, from 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import Objects
from kdbench.data.decode.masks import decoded
from kdbench.data.feed.loader import RawInOrder
from kdbench.deploy.around import Loaded
from kdbench.deploy.load import rows_of_run, task_of
from kdbench.kinds import Kind
from kdbench.kinds.base import Evidence
from kdbench.kinds.predicted import SIDES, Entries, Entry
from kdbench.records.files import Record


@dataclass(frozen=True)
class OfFile:
    """The score of a result file.

    Attributes:
        metrics: by name, primary first.
        classes: the primary one of each class, by its name.
        recorded: the primary one in the run's record.
        pictures, entries: that were scored.
    """

    metrics: Mapping[str, float]
    classes: Mapping[str, float]
    recorded: float
    pictures: int
    entries: int


def on_test(loaded: Loaded, progress: Progress) -> list[Entry]:
    """What a network finds on the test pictures of its run.

    Raises:
        UserError: its answers are no places in pictures.
    """
    module, given = loaded.module, loaded.test
    _require_placed(module.kind, module.about.words)
    found: list[Entry] = []
    batches = RawInOrder(given)
    with torch.no_grad(), progress.bar("predicting", len(batches)) as advance:
        for index, raw in batches:
            came = raw.y.origin if isinstance(raw.y, Objects) else None
            listed = module.kind.entries(module.found(raw.x[module.about.raw.name], came))
            for row, own in zip(index.tolist(), listed, strict=True):
                found += [{"image_id": row, **entry} for entry in own]
            advance()
    return found


def score_file(record: Record, file: Path, home: Home, data: Path | None, progress: Progress) -> OfFile:
    """Scores a result file against the test pictures of a run, by the metrics and rules of its task.

    Raises:
        UserError: the run's answers are no places in pictures, its data are not at hand, or the file is no such file;
            names the entry.
    """
    spec = task_of(record)
    kind = spec.of_kind
    _require_placed(kind, record.run_id[:12])
    given = _read(file)
    rows = rows_of_run(record, spec, home, data, progress)
    y = rows.test.y
    entries = _entries(given, file, kind, y, rows.classes)
    evidence = Evidence(kind.answered_by(entries, y, rows.classes), y, k=spec.score.k)
    metrics = kind.score(spec.score.metrics, evidence)
    named = rows.class_names or tuple(map(str, range(rows.classes)))
    of_class = {named[label]: value for label, value in kind.by_class(spec.score.primary, evidence).items()}
    assert record.metrics is not None
    return OfFile(metrics, of_class, record.metrics.last[spec.score.primary], len(y), len(given))


def _require_placed(kind: Kind, words: str) -> None:
    if not kind.placed or type(kind).blank is Kind.blank:
        raise UserError(f"{words}: answers of a {kind.name} task are no places in pictures; result files hold such")


def _read(file: Path) -> list[Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cut off or not readable ({error}); write it again") from error
    if not isinstance(found, list):
        raise UserError(
            f"{file}: a result file is a list of what was found, as COCO's are; found {type(found).__name__}"
        )
    return found


def _entries(given: list[Any], file: Path, kind: Kind, y: Any, classes: int) -> Entries:
    """Entries by picture, checked."""
    made: Entries = [[] for _ in range(len(y))]
    size = _size(y)
    for number, one in enumerate(given):
        here = f"{file}: entry {number}"
        if not isinstance(one, Mapping):
            raise UserError(f"{here}: an object with image_id and category_id is expected")
        _whole(one, "image_id", 0, len(y) - 1, here, "numbers of the test pictures")
        _whole(one, "category_id", 1, classes, here, "numbers of the classes")
        _numbers([one.get("score")], "score", here)
        if kind.box is not None:
            sides, count = one.get(kind.box), SIDES[kind.box]
            if not isinstance(sides, list) or len(sides) != count:
                raise UserError(f"{here}: {kind.box} is {str(sides)[:60]}; {count} numbers are expected")
            _numbers(sides, kind.box, here)
        if size is not None:
            decoded(one.get("segmentation"), size, here)
        made[one["image_id"]].append(dict(one))
    return made


def _size(y: Any) -> tuple[int, int] | None:
    """Height and width of masks or maps, None of boxes alone."""
    if isinstance(y, Objects):
        layers = y[:1].layers
        return None if layers is None else (layers.shape[-2], layers.shape[-1])
    return y.labels.shape[1], y.labels.shape[2]


def _whole(one: Mapping[str, Any], key: str, low: int, high: int, here: str, what: str) -> None:
    value = one.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{here}: {key} is {value!r}; {low} to {high} are the {what}")


def _numbers(values: list[Any], key: str, here: str) -> None:
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= sys.float_info.max:  # a whole number may be beyond any float
            raise UserError(f"{here}: {key} holds {str(value)[:60] if number else repr(value)}; a number is expected")
