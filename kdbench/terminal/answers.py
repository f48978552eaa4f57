"""What `score` and `predict` print."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from kdbench import kinds
from kdbench.kinds.predicted import SIDES
from kdbench.terminal.tables import table

if TYPE_CHECKING:
    from kdbench.deploy.about import About
    from kdbench.deploy.predict import Prediction
    from kdbench.deploy.results import OfFile
    from kdbench.deploy.score import OnFolder
    from kdbench.records.files import Record

SHOWN = 3
"""Classes a file in a table; CSV and JSON hold all."""


def score(about: About, found: OnFolder, folder: str) -> list[Table | str]:
    """Metrics on a folder beside the record's, and what the folder lacks."""
    made = table(
        escape(f"{about.words} on {folder}: {sum(found.rows)} rows"), "metric", ">value", "unit", ">in its record"
    )
    for name, value in found.metrics.items():
        own = f"{about.scored.value:.2f}" if name == about.scored.primary else "–"
        made.add_row(name, f"{value:.2f}", _unit(about, name), own)
    lacking = [name for name, rows in zip(about.answer.classes, found.rows, strict=False) if not rows]
    line = f"no rows of {len(lacking)} of {len(about.answer.classes)} classes: {', '.join(lacking[:10])}"
    return [made, *([line + (", ..." if len(lacking) > 10 else "")] if lacking else [])]


def _unit(about: About, metric: str) -> str:
    own = kinds.metrics()[metric].unit
    return about.scored.unit if own is None else own


def score_json(about: About, found: OnFolder) -> dict[str, Any]:
    """The same as JSON data."""
    classes = about.answer.classes
    return {
        "run_id": about.origin.run_id,
        "net": about.origin.net,
        "metrics": dict(found.metrics),
        "units": {name: _unit(about, name) for name in found.metrics},
        "rows": sum(found.rows),
        **({"rows_by_class": dict(zip(classes, found.rows, strict=True))} if classes else {}),
    }


def predictions(about: About, found: Sequence[Prediction]) -> Table:
    """A line a file: the class and its probability, and those that follow; or the value."""
    title = escape(about.words)
    if _placed(about):
        made = table(title, "file", "class", ">score", "place")
        for one in found:
            for entry in one.found:
                made.add_row(escape(one.file), escape(_class(about, entry)), f"{entry['score']:.3f}", _place(entry))
            if not one.found:
                made.add_row(escape(one.file), "nothing", "", "")
        return made
    if not about.answer.classes:
        made = table(title, "file", ">value", "unit")
        for one in found:
            made.add_row(escape(one.file), f"{one.value:.4g}", escape(about.answer.unit))
        return made
    made = table(title, "file", "class", ">probability", "then")
    for one in found:
        (name, share), *others = _best(about, one)[:SHOWN]
        then = ", ".join(f"{other} {p:.3f}" for other, p in others)
        made.add_row(escape(one.file), escape(name), f"{share:.3f}", escape(then))
    return made


def predictions_csv(about: About, found: Sequence[Prediction]) -> str:
    """A line a file; probabilities of all classes, each a column ``p:<class>``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = about.answer.classes
    if _placed(about):
        writer.writerow(["file", "class", "score", "place"])
        for one in found:
            writer.writerows(
                [one.file, _class(about, entry), f"{entry['score']:.6g}", _place(entry)] for entry in one.found
            )
        return text.getvalue()
    writer.writerow(
        ["file", "class", "probability", *(f"p:{name}" for name in classes)] if classes else ["file", "value", "unit"]
    )
    for one in found:
        if classes:
            (name, share), *_ = _best(about, one)
            writer.writerow([one.file, name, f"{share:.6g}", *(f"{p:.6g}" for p in one.probabilities)])
        else:
            writer.writerow([one.file, f"{one.value:.7g}", about.answer.unit])
    return text.getvalue()


def predictions_json(about: About, found: Sequence[Prediction]) -> list[dict[str, Any]]:
    """An object a file."""
    if _placed(about):
        return [
            {"file": one.file, "found": [{"class": _class(about, entry), **entry} for entry in one.found]}
            for one in found
        ]
    if not about.answer.classes:
        return [{"file": one.file, "value": one.value, "unit": about.answer.unit} for one in found]
    return [
        {
            "file": one.file,
            "class": _best(about, one)[0][0],
            "probability": _best(about, one)[0][1],
            "probabilities": dict(zip(about.answer.classes, one.probabilities, strict=True)),
        }
        for one in found
    ]


def _placed(about: About) -> bool:
    return kinds.kind(about.kind).placed


def _class(about: About, entry: Mapping[str, Any]) -> str:
    return about.answer.classes[entry["category_id"] - 1]


def _place(entry: Mapping[str, Any]) -> str:
    """The numbers of a box, or how large a region is."""
    for key in SIDES:
        if key in entry:
            return f"{key} " + " ".join(f"{side:.1f}" for side in entry[key])
    from faster_coco_eval.core import mask as coco

    counts = entry["segmentation"]["counts"]
    return f"{int(coco.area({**entry['segmentation'], 'counts': counts.encode()}))} pixels"


def of_file(record: Record, found: OfFile, file: str) -> list[Table | str]:
    """Metrics of a result file beside the record's, and the primary one of each class."""
    primary = record.task.metric_primary
    title = f"{file}: {found.entries} entries on {found.pictures} test pictures of {record.task.label}"
    made = table(escape(title), "metric", ">value", ">in the record")
    for name, value in found.metrics.items():
        made.add_row(name, f"{value:.2f}", f"{found.recorded:.2f}" if name == primary else "–")
    own = table(f"{primary} of each class", "class", ">value")
    for name, value in found.classes.items():
        own.add_row(escape(name), f"{value:.2f}")
    return [made, *([own] if found.classes else [])]


def file_json(record: Record, found: OfFile) -> dict[str, Any]:
    """The same as JSON data."""
    return {
        "run_id": record.run_id, "metrics": dict(found.metrics), "classes": dict(found.classes),
        "recorded": {record.task.metric_primary: found.recorded}, "pictures": found.pictures, "entries": found.entries,
    }  # fmt: skip


def _best(about: About, one: Prediction) -> list[tuple[str, float]]:
    """Classes and probabilities, the most probable first."""
    return sorted(zip(about.answer.classes, one.probabilities, strict=True), key=lambda pair: -pair[1])
