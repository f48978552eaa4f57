"""``kdbench predict``: what a network says of files that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.deploy import rows
from kdbench.deploy.module import Deployed
from kdbench.kinds.predicted import Entry

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a network says of a file.

    Attributes:
        probabilities: of each class, in the order of the network's; empty for a regression.
        value: in the task's unit, None for classes.
        vector: embedding, or bits 0 and 1 of a code; empty where the network gives neither.
        found: places in the picture, as of :mod:`kdbench.kinds.predicted`.
    """

    file: str
    probabilities: tuple[float, ...] = ()
    value: float | None = None
    vector: tuple[float, ...] = ()
    found: tuple[Entry, ...] = ()


def predict(module: Deployed, files: Sequence[Path], progress: Progress) -> list[Prediction]:
    """A prediction a file, in order.

    Raises:
        UserError: a file that is not what the network reads, or answers that nothing here puts into words.
    """
    about = module.about
    if module.kind.placed:
        return [
            Prediction(str(file), found=tuple(own))
            for file, own in zip(files, _placed(module, files, progress), strict=True)
        ]
    if module.kind.vector is None and about.answer.column is None:
        raise UserError(f"{about.words}: scores of a {about.kind} task are no probabilities; take them from Python")
    found: list[Prediction] = []
    with torch.no_grad(), progress.bar("predicting", len(files)) as advance:
        for begin in range(0, len(files), BATCH):
            some = files[begin : begin + BATCH]
            answers = module(module.read(some)).double()
            for file, row in zip(some, answers, strict=True):
                found.append(_said(module, str(file), row))
                advance()
    return found


def _said(module: Deployed, file: str, row: Tensor) -> Prediction:
    """Of what a network gave for a file."""
    vector = module.kind.vector
    if vector is not None:
        return Prediction(file, vector=tuple((row >= 0 if vector.bits else row).tolist()))
    if module.about.answer.range is not None:
        return Prediction(file, value=float(row))
    return Prediction(file, tuple(row.softmax(0).tolist()))


def _placed(module: Deployed, files: Sequence[Path], progress: Progress) -> list[list[Entry]]:
    """What is found on each picture."""
    found: list[list[Entry]] = []
    with torch.no_grad(), progress.bar("predicting", len(files)) as advance:
        for file in files:
            raw, came = rows.read_sized(module.about.raw, [file])
            found += module.kind.entries(module.found(raw, came))
            advance()
    return found
