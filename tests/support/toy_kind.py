"""A kind of task outside kdbench, whole in one file: several classes a row, as many as there are; with its data.

Every digit is named by the primes below ten that divide it: 6 by 2 and 3, 7 by 7, 1 by none, 0 by all four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.data.decode.facts import Facts
from kdbench.kinds.base import Evidence, Kind, Metric, Tiny

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Ragged
    from kdbench.data.decode.place import Place
    from kdbench.data.feed.dataset import Dataset

PRIMES = (2, 3, 5, 7)
DIVISORS = [[place for place, prime in enumerate(PRIMES) if digit % prime == 0] for digit in range(10)]
FACTS = Facts(1000, len(PRIMES), {"image": (1, 8, 8)}, about="made of scikit-learn's digits", licence="BSD")


def divisors(pixels: Tensor, digits: Tensor) -> Ragged:
    """(N,) digits as the numbers of their primes."""
    import torch

    from kdbench.contract import Ragged

    return Ragged.of([DIVISORS[int(digit)] for digit in digits], torch.int64)


def several_hot(y: Any, classes: int) -> Tensor:
    """Ragged class numbers as (N, C) 0 or 1."""
    import torch

    hot = torch.zeros(len(y), classes, device=y.values.device)
    return hot.index_put((y.row, y.values), torch.ones((), device=hot.device))


def _exact(p: Evidence) -> Tensor:
    wanted = several_hot(p.y.to(p.output.device), p.output.shape[1])
    return 100 * ((p.output > 0) == wanted.bool()).all(1).double().mean()


def _hamming(p: Evidence) -> Tensor:
    wanted = several_hot(p.y.to(p.output.device), p.output.shape[1])
    return 100 * ((p.output > 0) != wanted.bool()).double().mean()


class Multilabel(Kind):
    """Targets are lists of classes; the loss is the binary cross-entropy of each class."""

    name = "multilabel"
    about = "several classes a row, or none"
    metrics: ClassVar = {
        "exact": Metric(True, "%", "test items of which every class is right", _exact, high=100.0, share=True),
        "hamming": Metric(False, "%", "classes that are wrong", _hamming, high=100.0),
    }
    tiny = Tiny("exact", divisors, classes=len(PRIMES))

    def loss(self, out: Out, batch: Batch) -> Tensor:
        import torch.nn.functional as F

        return F.binary_cross_entropy_with_logits(out.logits, several_hot(batch.y, out.logits.shape[1]))


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The digits, each with its divisors."""
    from dataclasses import replace

    from kdbench.data.sources import digits

    found = digits.load({})
    train, test = (rows._replace(y=divisors(rows.x["image"], rows.y)) for rows in (found.train, found.test))
    return replace(found, name="divisors", train=train, test=test, classes=len(PRIMES))


KIND = Multilabel()
