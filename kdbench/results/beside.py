"""Scores beside a cell's own, by name: the primary metric of each class, or on each test set from elsewhere. Means over
seeds, and how far they lie from the baseline's on the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdbench import kinds
from kdbench.index.store import Store
from kdbench.results import cells
from kdbench.results.cells import ResultRow
from kdbench.results.pairing import paired
from kdbench.stats import CellStat, PairedDelta, clipped, summarise

OWN = "own test rows"
"""What the score itself is called among those elsewhere; no set can be."""


@dataclass(frozen=True)
class Beside:
    """A score of one cell beside its own.

    Attributes:
        name: of the class or the test set.
        stat: over the seeds that have it.
        to_baseline: seed-paired difference, positive where the method is better; None without a partner.
    """

    name: str
    stat: CellStat
    to_baseline: PairedDelta | None


@dataclass(frozen=True)
class Told:
    """What an index holds of such scores.

    Attributes:
        known: run id to name to score.
        partners: run id to the baseline's run that it is paired with, of other methods' runs.
    """

    known: Mapping[str, Mapping[str, float]]
    partners: Mapping[str, str]

    @classmethod
    def classes(cls, store: Store) -> Told:
        """Of each class that a run's test rows hold."""
        return cls._of(store, store.class_scores())

    @classmethod
    def elsewhere(cls, store: Store) -> Told:
        """On each test set from elsewhere."""
        return cls._of(store, store.external_scores())

    @classmethod
    def _of(cls, store: Store, known: Mapping[str, Mapping[str, float]]) -> Told:
        pairs = store.deltas(is_baseline=True) if known else []
        others = {row["run_id"]: row["reference_run_id"] for row in pairs if row["run_id"] != row["reference_run_id"]}
        return cls(known, others)

    def cell(self, cell: Mapping[str, Any]) -> list[Beside]:
        """Those of a row of ``v_cell``, by name; none where its runs have none."""
        runs = dict(zip(cell["seeds"], cell["run_ids"], strict=True))
        own = {seed: self.known[run] for seed, run in runs.items() if run in self.known}
        partners = {seed: self.partners.get(run, "") for seed, run in runs.items()}
        theirs = {seed: self.known[run] for seed, run in partners.items() if run in self.known}
        metric = kinds.metrics().get(cell["metric"])
        bounds = metric.bounds if metric is not None else (None, None)
        found = []
        for name in sorted({name for scores in own.values() for name in scores}):
            mine, base = ({n: one[name] for n, one in side.items() if name in one} for side in (own, theirs))
            found.append(Beside(name, clipped(summarise(mine), *bounds), paired(mine, base, cell)))
        return found


def by_class(store: Store, **where: Any) -> list[tuple[ResultRow, list[Beside]]]:
    """Current cells whose metric is told by class; ``where`` as of :func:`kdbench.results.cells.rows`."""
    return _rows(store, Told.classes, where)


def elsewhere(store: Store, **where: Any) -> list[tuple[ResultRow, list[Beside]]]:
    """Current cells that were scored on test sets from elsewhere, their own score first; ``where`` as above."""
    found = _rows(store, Told.elsewhere, where)
    return [
        (row, [*([] if row.score is None else [Beside(OWN, row.score, row.to_baseline)]), *own]) for row, own in found
    ]


def _rows(
    store: Store, known: Callable[[Store], Told], where: Mapping[str, Any]
) -> list[tuple[ResultRow, list[Beside]]]:
    told = known(store)
    made = [(row, told.cell(row.cell)) for row in cells.rows(store, **where) if row.cell and row.current]
    return [(row, own) for row, own in made if own]
