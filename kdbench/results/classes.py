"""The primary metric of each class: means over seeds, and how far they lie from the baseline's on the same seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.index.store import Store
from kdbench.results import cells
from kdbench.results.cells import ResultRow
from kdbench.stats import CellStat, Direction, PairedDelta, paired_delta, summarise


@dataclass(frozen=True)
class ClassScore:
    """A class's score in one cell.

    Attributes:
        stat: over the seeds whose test rows hold the class.
        to_baseline: seed-paired difference, positive where the method is better; None without a partner.
    """

    name: str
    stat: CellStat
    to_baseline: PairedDelta | None


@dataclass(frozen=True)
class Told:
    """What an index holds of classes.

    Attributes:
        known: run id to class to score.
        partners: run id to the baseline's run that it is paired with, of other methods' runs.
    """

    known: Mapping[str, Mapping[str, float]]
    partners: Mapping[str, str]

    @classmethod
    def of(cls, store: Store) -> Told:
        """Of all runs."""
        known = store.class_scores()
        pairs = store.deltas(is_baseline=True) if known else []
        others = {row["run_id"]: row["reference_run_id"] for row in pairs if row["run_id"] != row["reference_run_id"]}
        return cls(known, others)

    def cell(self, cell: Mapping[str, Any]) -> list[ClassScore]:
        """The classes of a row of ``v_cell``, by name; none where its metric is not told by class."""
        runs = dict(zip(cell["seeds"], cell["run_ids"], strict=True))
        own = {seed: self.known[run] for seed, run in runs.items() if run in self.known}
        partners = {seed: self.partners.get(run, "") for seed, run in runs.items()}
        theirs = {seed: self.known[run] for seed, run in partners.items() if run in self.known}
        direction: Direction = "max" if cell["higher_is_better"] else "min"
        found = []
        for name in sorted({name for scores in own.values() for name in scores}):
            mine, base = ({n: one[name] for n, one in side.items() if name in one} for side in (own, theirs))
            delta = paired_delta(mine, base, direction) if mine.keys() & base.keys() else None
            found.append(ClassScore(name, summarise(mine), delta))
        return found


def rows(store: Store, **where: Any) -> list[tuple[ResultRow, list[ClassScore]]]:
    """Current cells whose metric is told by class, with these; ``where`` as of :func:`kdbench.results.cells.rows`."""
    told = Told.of(store)
    made = [(row, told.cell(row.cell)) for row in cells.rows(store, **where) if row.cell and row.current]
    return [(row, own) for row, own in made if own]
