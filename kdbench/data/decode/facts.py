"""What a data source says of itself before anything of it is read. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """``FACTS`` of a module below ``kdbench.data.sources``, or what a described set's file tells.

    Attributes:
        rows: training rows.
        classes: 1 for a regression.
        shapes: input name to the shape of one row.
        about: where the rows come from, in a few words.
        licence: a short note.
        made_of: described data sets that the source puts together; none for one that ships with a dependency.
    """

    rows: int
    classes: int
    shapes: Mapping[str, tuple[int, ...]]
    about: str = ""
    licence: str = ""
    made_of: tuple[str, ...] = ()
