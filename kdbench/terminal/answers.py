"""What `score` and `predict` print."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
"""Classes, or numbers of an embedding, a file in a table; CSV and JSON hold all."""


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


@dataclass(frozen=True)
class _Form:
    """How predictions of one sort are printed.

    Attributes:
        columns: of a table, behind the file's; ``>`` begins those of numbers.
        lines: of a file in the table, the markup escaped.
        csv_columns: behind the file's.
        csv_lines: of a file.
        fields: of a file's object.
    """

    columns: Callable[[About], Sequence[str]]
    lines: Callable[[About, Prediction], list[list[str]]]
    csv_columns: Callable[[About, Sequence[Prediction]], Sequence[str]]
    csv_lines: Callable[[About, Prediction], list[list[str]]]
    fields: Callable[[About, Prediction], dict[str, Any]]


def predictions(about: About, found: Sequence[Prediction]) -> Table:
    """A line a file: the class and its probability, and those that follow; the value; the embedding or code.

    Of places, a line each.
    """
    form = _form(about)
    made = table(escape(about.words), "file", *form.columns(about))
    for one in found:
        for line in form.lines(about, one):
            made.add_row(escape(one.file), *line)
    return made


def predictions_csv(about: About, found: Sequence[Prediction]) -> str:
    """The same with what a table leaves out: each class's probability (``p:<class>``), each number (``e:<place>``)."""
    form = _form(about)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *form.csv_columns(about, found)])
    for one in found:
        writer.writerows([one.file, *line] for line in form.csv_lines(about, one))
    return text.getvalue()


def predictions_json(about: About, found: Sequence[Prediction]) -> list[dict[str, Any]]:
    """An object a file."""
    form = _form(about)
    return [{"file": one.file, **form.fields(about, one)} for one in found]


def _form(about: About) -> _Form:
    kind = kinds.kind(about.kind)
    if kind.placed:
        return _PLACES
    if kind.vector is not None:
        return _CODES if kind.vector.bits else _EMBEDDINGS
    return _CLASSES if about.answer.classes else _VALUES


def _best(about: About, one: Prediction) -> list[tuple[str, float]]:
    """Classes and probabilities, the most probable first."""
    return sorted(zip(about.answer.classes, one.probabilities, strict=True), key=lambda pair: -pair[1])


def _class_line(about: About, one: Prediction) -> list[str]:
    (name, share), *others = _best(about, one)[:SHOWN]
    return [escape(name), f"{share:.3f}", escape(", ".join(f"{other} {p:.3f}" for other, p in others))]


def _class_csv(about: About, one: Prediction) -> list[str]:
    (name, share), *_ = _best(about, one)
    return [name, f"{share:.6g}", *(f"{p:.6g}" for p in one.probabilities)]


def _class_fields(about: About, one: Prediction) -> dict[str, Any]:
    (name, share), *_ = _best(about, one)
    shares = dict(zip(about.answer.classes, one.probabilities, strict=True))
    return {"class": name, "probability": share, "probabilities": shares}


def _numbers(one: Prediction) -> str:
    """The first of an embedding, and how many there are."""
    first = " ".join(f"{number:.3g}" for number in one.vector[:SHOWN])
    return f"{first}{' …' if len(one.vector) > SHOWN else ''} ({len(one.vector)})"


def _bits(one: Prediction) -> str:
    return "".join(str(int(bit)) for bit in one.vector)


def _found(about: About, one: Prediction) -> list[list[str]]:
    return [[_class(about, entry), f"{entry['score']:.3f}", _place(entry)] for entry in one.found]


_CLASSES = _Form(
    columns=lambda about: ["class", ">probability", "then"],
    lines=lambda about, one: [_class_line(about, one)],
    csv_columns=lambda about, found: ["class", "probability", *(f"p:{name}" for name in about.answer.classes)],
    csv_lines=lambda about, one: [_class_csv(about, one)],
    fields=_class_fields,
)
_VALUES = _Form(
    columns=lambda about: [">value", "unit"],
    lines=lambda about, one: [[f"{one.value:.4g}", escape(about.answer.unit)]],
    csv_columns=lambda about, found: ["value", "unit"],
    csv_lines=lambda about, one: [[f"{one.value:.7g}", about.answer.unit]],
    fields=lambda about, one: {"value": one.value, "unit": about.answer.unit},
)
_EMBEDDINGS = _Form(
    columns=lambda about: ["embedding"],
    lines=lambda about, one: [[_numbers(one)]],
    csv_columns=lambda about, found: [f"e:{place}" for place in range(len(found[0].vector))],
    csv_lines=lambda about, one: [[f"{number:.7g}" for number in one.vector]],
    fields=lambda about, one: {"embedding": list(one.vector)},
)
_CODES = _Form(
    columns=lambda about: ["code"],
    lines=lambda about, one: [[_bits(one)]],
    csv_columns=lambda about, found: ["code"],
    csv_lines=lambda about, one: [[_bits(one)]],
    fields=lambda about, one: {"code": _bits(one)},
)
_PLACES = _Form(
    columns=lambda about: ["class", ">score", "place"],
    lines=lambda about, one: [[escape(name), *rest] for name, *rest in _found(about, one)] or [["nothing", "", ""]],
    csv_columns=lambda about, found: ["class", "score", "place"],
    csv_lines=lambda about, one: [
        [_class(about, entry), f"{entry['score']:.6g}", _place(entry)] for entry in one.found
    ],
    fields=lambda about, one: {"found": [{"class": _class(about, entry), **entry} for entry in one.found]},
)


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
