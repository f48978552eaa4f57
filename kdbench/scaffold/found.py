"""What someone's pictures say for a data set file, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdbench.scaffold.aims import Aim
from kdbench.scaffold.sample import Look, look

TEST_EVERY = 5
"""One row in so many becomes a test row where there is no test part."""
VALIDATION = "{} holds validation rows, neither trained on nor tested on; `data.options.score=val` scores on them"
SAMPLE = 256
"""Pictures looked at."""


@dataclass(frozen=True)
class Found:
    """What a data set file says, as far as the data tell.

    Attributes:
        parts: name of the training and of the test part, and of the validation part where there is one.
        test_every: where no test part was found.
        rows: training rows, about.
        column: of the pictures.
        look: what some of the pictures have in common.
        notes: what a person should know about how the data are read.
    """

    parts: Mapping[str, str]
    test_every: int | None
    rows: int
    aim: Aim
    column: str
    look: Look
    notes: Sequence[str] = ()


def one_part(name: str) -> tuple[dict[str, str], int, str]:
    """One part that holds all rows, and what to say about it."""
    note = f"no test part was found: one row in {TEST_EVERY}, of each class, is held back by a draw with a fixed seed"
    return dict.fromkeys(("train", "test"), name), TEST_EVERY, note


def looked(files: Iterable[tuple[str, bytes]], notes: Sequence[str]) -> tuple[Look, list[str]]:
    found = look(files)
    return found, [*notes, *found.notes]
