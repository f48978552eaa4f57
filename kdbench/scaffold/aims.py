"""Which column of a table holds the pictures and which is predicted, and what the values are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kdbench.base.errors import UserError, nearest
from kdbench.data.decode.classnames import label_names
from kdbench.data.decode.table import is_text

PICTURES = ("image", "img", "picture", "photo", "pixels", "images", "imgs", "jpg", "png", "jpeg", "file")
"""What people call the column of the pictures, the most usual first."""
LABELS = (
    "label", "labels", "class", "fine_label", "category", "y", "target", "class_id", "label_id", "category_id",
    "class_label", "class_index", "class_idx", "classes", "target_class", "species", "breed", "digit",
)  # fmt: skip
"""What people call the column of the classes, the most usual first."""
ROWS_A_CLASS = 2
"""A column of another name is one of classes where its values occur so often on average."""


@dataclass(frozen=True)
class Aim:
    """What is predicted: ``classes`` of whole numbers from 0 or of ``names``, or a number from ``low`` to ``high``."""

    column: str
    classes: int | None = None
    names: Sequence[str] | None = None
    low: float = 0.0
    high: float = 0.0


def picture_column(schema: pa.Schema, where: Any, image: str | None) -> str:
    """The column of picture files: the one named, else one of a usual name, else the only one.

    Raises:
        UserError: there is none, or several of no usual name.
    """

    def holds_files(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    found = [field.name for field in schema if holds_files(field.type)]
    if image is not None:
        if image not in found:
            raise UserError(f"{where}: --image {image!r} is no column of picture files{nearest(image, found)}")
        return image
    if not found:
        raise UserError(f"{where}: no column of picture files among {', '.join(schema.names)}")
    usual = _named(found, PICTURES)
    if usual is None and len(found) > 1:
        raise UserError(f"{where}: which column holds the pictures? name it with --image; there are {', '.join(found)}")
    return usual or found[0]


def aim_column(
    schema: pa.Schema,
    where: Any,
    label: str | None,
    target: str | None,
    named: Mapping[str, int],
    repeats: Any,
    *,
    texts: bool,
) -> tuple[str, bool]:
    """The column to predict, and whether it is a number rather than a class.

    Args:
        named: columns whose classes have names, as :func:`class_labels` finds them.
        repeats: column -> whether its values occur often enough to be classes.
        texts: classes may be texts, for all rows are looked at.

    Raises:
        UserError: it is not plain which, or the one named is no such column.
    """
    chosen = label or target
    if chosen is None:
        whole = [field.name for field in schema if pa.types.is_integer(field.type)]
        usual = _named(list(named), LABELS) or (next(iter(named)) if len(named) == 1 else None) or _named(whole, LABELS)
        chosen = usual or (whole[0] if len(whole) == 1 and repeats(whole[0]) else None)
        other = _named(schema.names, LABELS)
        chosen = chosen or (other if other is not None and not pa.types.is_floating(schema.field(other).type) else None)
    if chosen is None:
        raise UserError(
            f"{where}: which column is predicted? name classes with --label or a number with --target; there are "
            f"{', '.join(schema.names)}"
        )
    if chosen not in schema.names:
        option = "--label" if label else "--target"
        raise UserError(f"{where}: {option} {chosen!r} is no column{nearest(chosen, schema.names)}")
    kind = schema.field(chosen).type
    if pa.types.is_nested(kind):
        raise UserError(
            f"{where}: column {chosen!r} is of type {kind}: several labels a row; multi-label is no kind of task here"
        )
    named_here = target is None and texts and is_text(kind)
    wanted = named_here or pa.types.is_integer(kind) or (target is not None and pa.types.is_floating(kind))
    if not wanted:
        raise UserError(
            f"{where}: column {chosen!r} is of type {kind}; classes are whole numbers from 0, targets are numbers"
        )
    return chosen, target is not None


def read_names(column: str, values: Sequence[str | None], where: Any) -> Aim:
    """Classes that are texts, in the order of their names: of their numbers where all are numbers.

    Raises:
        UserError: a row without one, or one class alone.
    """
    missing = next((row for row, value in enumerate(values) if not value), None)
    if missing is not None:
        raise UserError(f"{where}: row {missing} has no label in column {column!r}; leave such rows out")
    found = {str(value) for value in values}
    if len(found) < 2:
        raise UserError(f"{where}: every row has the label {found.pop()!r}; there is nothing to tell apart")
    numbers = all(name.isdecimal() for name in found)
    names = sorted(found, key=lambda name: (int(name) if numbers else 0, name))
    return Aim(column, classes=len(names), names=names)


def _named(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The name that is most usual, whatever its case."""
    folded = {name.casefold(): name for name in reversed(names)}
    return next((folded[word] for word in usual if word in folded), None)


def class_labels(schema: pa.Schema) -> dict[str, int]:
    """Columns that `datasets` wrote as ClassLabel, and how many classes each has."""
    return {name: len(names) for name, names in label_names(schema).items()}


def repeats(values: Sequence[Any]) -> bool:
    """Whether values occur often enough to be classes."""
    return len(values) >= ROWS_A_CLASS * len(set(values))


def read_aim(chosen: str, number: bool, values: Sequence[Any], where: Any, classes: int | None) -> Aim:
    """What the values of the chosen column say.

    Args:
        values: of all rows that were looked at.
        classes: how many there are, where the data say so.

    Raises:
        UserError: a row without a value, classes that are not numbered from 0, or nothing to tell apart.
    """
    if not len(values):
        raise UserError(f"{where}: it has no rows")
    missing = next((row for row, value in enumerate(values) if value is None or not np.isfinite(float(value))), None)
    if missing is not None:
        what = "finite number" if number else "label"
        raise UserError(f"{where}: row {missing} has no {what} in column {chosen!r}; leave such rows out")
    low, high = float(min(values)), float(max(values))
    if number:
        if low == high:
            raise UserError(f"{where}: every row has {low:g} in column {chosen!r}; there is nothing to predict")
        return Aim(chosen, low=low, high=high)
    if low == -1:
        row = list(values).index(-1)
        raise UserError(f"{where}: row {row} has the label -1, which often stands for none; leave such rows out")
    if classes is None and low != 0:
        raise UserError(f"{where}: column {chosen!r} runs from {low:g} to {high:g}; number the classes from 0")
    if classes is not None and not (low >= 0 and high < classes):
        raise UserError(f"{where}: column {chosen!r} runs from {low:g} to {high:g}, and names {classes} classes")
    if low == high:
        raise UserError(f"{where}: every row has the label {low:g}; there is nothing to tell apart")
    return Aim(chosen, classes=classes or int(high) + 1)
