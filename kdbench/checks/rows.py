"""Checks of a task's rows: what people would not notice before a score is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from kdbench.checks.result import CheckResult
from kdbench.contract import Rows
from kdbench.data import Place
from kdbench.data.decode.cache import Decoded, names_of
from kdbench.data.decode.inputs import ImageInput, Input, PictureInput, height_width
from kdbench.data.decode.tables import passed_over
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.described import of_source
from kdbench.data.feed.stored import Stored
from kdbench.specs.data import Data

LOOKED_AT = 512
"""Rows read of a column that is kept compressed."""
FEW = 3
"""Rows of a class from which on they must not all be equal."""
SHARES = 10.0
"""Percentage points by which the share of a class may differ between the parts before it is said."""
REPEATED = 0.1
"""Share of the test rows that stand in the training part from which on the score measures memory."""


def remarks(given: Data, rows: Dataset, place: Place) -> Iterator[str]:
    """What is no fault and should be known: how pictures are read, files passed over, classes without a row."""
    found = of_source(given, place)
    if found is not None:
        yield from (f"input {name!r}: {said}" for name, one in found[0].inputs.items() if (said := how_read(one)))
        yield from passed_over(*found)
    if _has_classes(rows):
        train, test = (torch.bincount(part.y, minlength=rows.classes) for part in (rows.train, rows.test))
        there = int((train > 0).sum())
        if there < rows.classes:
            yield f"{rows.classes - there} of {rows.classes} classes have no row"
        shares = [100 * counts / counts.sum() for counts in (train, test)]
        odd = int((shares[0] - shares[1]).abs().argmax())
        if abs(shares[0][odd] - shares[1][odd]) > SHARES:
            yield (
                f"the parts hold the classes in other shares: class {odd} is {shares[0][odd]:.1f} % of the training "
                f"rows and {shares[1][odd]:.1f} % of the test rows"
            )


def how_read(given: Input) -> str:
    """What is done to the pictures of an input before networks see them; empty for other inputs."""
    if not isinstance(given, ImageInput | PictureInput):
        return ""
    height, width = height_width(given.size)
    mode = "grey" if given.channels == 1 else "RGB"
    box = f"{width}x{height}"
    fits = {
        "exact": f"of {box} pixels",
        "scale": f"brought to {box}",
        "pad": f"scaled to lie within {box}, their shape kept",
    }
    if isinstance(given, ImageInput) and given.fit == "exact":
        others = f", of other modes converted to {mode}" if given.convert else ""
        return f"pictures of {box} pixels, {mode}{others}, neither resized nor cropped"
    if isinstance(given, ImageInput):
        return f"whole pictures {fits[given.fit]}, {mode}"
    if given.fit != "cut":
        return f"whole pictures {fits[given.fit]}, read when they are drawn, all modes converted to {mode}"
    side = "the short side" if height == width else f"the short side of the shape {box}"
    return f"{side} brought to {given.resize}, the centre {box} cut out, all modes converted to {mode}"


def _has_classes(rows: Dataset) -> bool:
    """Whether each row has one class."""
    return rows.label_range is None and isinstance(rows.train.y, Tensor)


def varies(rows: Dataset) -> str | None:
    """Rule ``varies``: what is wrong, None when nothing is."""
    for part in ("train", "test"):
        held: Rows = getattr(rows, part)
        for name, column in held.x.items():
            index = torch.arange(len(held.y))
            if isinstance(column, Stored) and len(index) > LOOKED_AT:
                index = torch.arange(LOOKED_AT) * len(index) // LOOKED_AT
            values = column[index]
            where = f"{part} rows of input {name!r}"
            if len(index) > 1 and _equal(values):
                return f"all {where} are equal{_why(values)}"
            if values.dtype is not torch.uint8 or not _has_classes(rows):
                continue
            y = held.y[index]
            for label in y.unique().tolist():
                members = values[y == label]
                if len(members) >= FEW and _equal(members):
                    return f"all {where} of class {label} are equal{_why(members)}"
    return None


def _equal(values: Tensor) -> bool:
    return bool((values == values[:1]).all())


def _why(values: Tensor) -> str:
    """What is likely behind it."""
    if values.dtype is not torch.uint8:
        return "; is it the right column?"
    flat = bool((values[0].flatten(1) == values[0].flatten(1)[:, :1]).all())
    if not flat:
        return "; are they copies of one picture?"
    return (
        ", and of one colour throughout: what is drawn in the alpha channel alone is lost, and of pictures that are "
        "cut to a square the centre alone is kept"
    )


def apart(rows: Dataset, decoded: Decoded | None) -> CheckResult:
    """Rule ``apart``: counts rows of the test and the validation part whose inputs stand in another part too."""
    val = decoded.facts.get("repeated_val", []) if decoded is not None else []
    if decoded is not None and val:
        of = decoded.facts["parts"]["val"]["rows"]
        said = f"{len(val)} of {of} validation rows stand in another part too, e.g. {_name(decoded, val[0], 'val')}"
        return CheckResult("apart", "", "failed" if len(val) > REPEATED * of else "ok", said)
    repeated = decoded.facts["repeated"] if decoded is not None else _repeated(rows)
    if not repeated:
        return CheckResult("apart", "", "ok")
    of = decoded.facts["parts"]["test"]["rows"] if decoded is not None else len(rows.test.y)
    example = f", e.g. {_name(decoded, repeated[0], 'test')}" if decoded is not None else f", e.g. row {repeated[0]}"
    said = f"{len(repeated)} of {of} test rows stand in the training part too{example}"
    return CheckResult("apart", "", "failed" if len(repeated) > REPEATED * of else "ok", said)


def _name(decoded: Decoded, row: int, part: str) -> str:
    with (decoded.folder / names_of(part)).open(encoding="utf-8") as lines:
        return next(line for number, line in enumerate(lines) if number == row).rstrip("\n")


def _repeated(rows: Dataset) -> list[int]:
    """Test rows, by number, whose inputs are those of a training row; of columns in memory."""
    seen = set(_digests(rows.train))
    return [row for row, digest in enumerate(_digests(rows.test)) if digest in seen]


def _digests(rows: Rows) -> Iterator[bytes]:
    columns = [np.ascontiguousarray(x.numpy()) for _, x in sorted(rows.x.items()) if isinstance(x, Tensor)]
    for row in range(len(rows.y)):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[row].tobytes())
        yield digest.digest()
