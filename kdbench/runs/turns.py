"""A run cut into turns: between two of them other runs of its process may go on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import Enum

from kdbench.records.files import Record


class Pause(Enum):
    """Why a run pauses."""

    STEP = "a step of training is done"
    MEASURING = "its cost comes next, with nothing beside it; answered False where another run sees to that"
    ALONE = "it goes on when no other does"


Turns = Generator[Pause, bool, Record]
"""A run, from one pause to the next; returns its record, written already."""


def through(turns: Turns) -> Record:
    """All of a run that has nothing beside it.

    Raises:
        Exception: what the run raises.
    """
    try:
        next(turns)
        while True:
            turns.send(True)
    except StopIteration as end:
        record: Record = end.value
        return record


def ended(record: Record) -> Turns:
    """A run of which a record is all there is to do."""
    none: Iterator[Pause] = iter(())
    yield from none
    return record
