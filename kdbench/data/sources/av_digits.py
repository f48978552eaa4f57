"""Spoken and handwritten digits: each recording of FSDD with one MNIST picture of the same digit and part.

The pairs are fixed (``kdbench/data/av_digits_pairs.csv``: part, row of FSDD, row of MNIST, digit). Inputs: ``audio``
(32, 63) log-mel bands, ``image`` (1, 28, 28) uint8. 2700 training and 300 test rows.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from kdbench.base.errors import UserError
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import set_spec

if TYPE_CHECKING:
    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset

PAIRS = Path(__file__).parents[1] / "av_digits_pairs.csv"
SETS = ("fsdd", "mnist")
FACTS = Facts(2700, 10, {"audio": (32, 63), "image": (1, 28, 28)}, made_of=SETS)


class AvDigitsOptions(BaseModel):
    """There are none."""

    model_config = ConfigDict(extra="forbid")


def pairs(part: str) -> list[tuple[int, int, int]]:
    """Row of FSDD, row of MNIST and digit of each pair of a part."""
    with PAIRS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == part]
    return [(int(row["fsdd_row"]), int(row["mnist_row"]), int(row["label"])) for row in rows]


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The pairs.

    Raises:
        UserError: FSDD or MNIST is not at hand, or is not the data the pairs were drawn for.
    """
    from kdbench.data.feed import described

    parse(AvDigitsOptions, options, "av-digits")
    sound, images = (described.load(set_spec(name), {}, place) for name in SETS)
    for found, name in ((sound, "fsdd"), (images, "mnist")):
        if not found.official:
            raise UserError(f"av-digits: its pairs are rows of {name} as it is in its origin, not of {found.name}")
    return replace(
        images,
        name="av-digits",
        train=_paired("train", sound.train, images.train),
        test=_paired("test", sound.test, images.test),
        transforms={**sound.transforms, **images.transforms},
        properties=frozenset(),
        source="fsdd:mnist",
        digests={},
    )


def _paired(part: str, sound: Rows, images: Rows) -> Rows:
    import torch

    from kdbench.contract import Rows

    heard, seen, digits = torch.tensor(pairs(part)).T
    if not (torch.equal(sound.y[heard], digits) and torch.equal(images.y[seen], digits)):
        raise UserError(
            f"av-digits: rows of the {part} part are not in the order of the pairs; get fsdd and mnist again"
        )
    return Rows({"audio": sound.x["audio"][heard], "image": images.x["image"][seen]}, digits)
