"""The one builder of cells: scores, pairs, costs and what must be said of them, for terminal, downloads and board."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdbench import kinds
from kdbench.index.store import Store
from kdbench.records import settings
from kdbench.records.files import Record
from kdbench.results import chance, taught
from kdbench.results.costs import Line, Totals, lines, totals
from kdbench.results.pairing import Cell, obstacle, paired
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import CellStat, PairedDelta, clipped, summarise

VERSIONS = {
    "engine_version": "engine version {}",
    "adapter_version": "adapter {}",
    "known": "other code or files",
    "data": "other data: {}",
    "test_sha256": "other test rows",
}
"""Columns of ``v_cell`` by which a newer cell takes an older one's place, and what is said of the older."""


@dataclass(frozen=True)
class Result:
    """A cell with all that follows from its runs.

    Attributes:
        cell: its row of ``v_cell``, or what is known of a run that no cell counts.
        record: the run that its costs are quoted from, without its curve (:func:`head_of`).
        scores, runs: score and run id by seed.
        stat: of the scores of seeds that learned, cut at the metric's bounds; differences are of these seeds too.
        cost: row of the overhead table, None where none was measured.
        totals, stages: device-hours by the ledger.
        theirs: scores of the baseline and of plain, by name, on the seeds that the cell is paired with them on.
        their_runs: the runs of these scores.
        deltas: seed-paired differences to the two, positive where the cell is better; None without a partner, or where
            the cell is the reference itself.
        unpaired: why there is no partner, by the reference's name; "" where there is one.
        matched: plain trained for as long as the cell's recipe takes, None where there is none, as of searched values;
            ``to_matched`` the difference to it.
        teacher: score of what the student learnt from.
        item_noise: standard error from the number of test items alone, in points; None where the score is no share.
        at_chance: seeds whose score is not told from that of an answer which ignores the input.
        overrides: settings that are not the method's and the task's own, by the key that sets them, where the cell's
            name does not say what was run.
    """

    cell: Cell
    record: Record
    scores: Mapping[int, float]
    runs: Mapping[int, str]
    stat: CellStat
    cost: dict[str, Any] | None
    totals: Totals
    stages: tuple[Line, ...]
    theirs: Mapping[str, Mapping[int, float]]
    their_runs: Mapping[str, Mapping[int, str]]
    deltas: Mapping[str, PairedDelta | None]
    unpaired: Mapping[str, str]
    matched: Cell | None
    to_matched: PairedDelta | None
    teacher: float | None
    item_noise: float | None
    at_chance: tuple[int, ...]
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Book:
    """What results are made from: the cells of some tasks and device classes with all that belongs to them.

    Attributes:
        pairs: (run id, reference method) to (the reference's score, its run id), by the index's pairing rule.
        alike: cells by what they are called.
        matches: current compute-matched cells by (matched method, place).
    """

    store: Store
    cells: list[Cell]
    pairs: Mapping[tuple[str, str], tuple[float, str]]
    alike: Mapping[tuple[Any, ...], list[Cell]]
    matches: Mapping[tuple[Any, ...], Cell]

    @classmethod
    def of(cls, store: Store, where: Mapping[str, Any]) -> Book:
        """The cells of ``where``, whatever their method: differences need the references too."""
        place = {key: value for key, value in where.items() if key in ("task", "task_version", "device_class")}
        pairs = {
            (row["run_id"], row["reference"]): (row["reference_score"], row["reference_run_id"])
            for row in store.deltas(**place)
            if row["run_id"] != row["reference_run_id"]
        }
        cells: list[Cell] = [*store.cells(**place)]
        alike: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
        for cell in cells:
            alike[name_of(cell)].append(cell)
        matches = {
            (cell["matched_method"], *_place(cell)): cell
            for cell in cells
            if cell["matched_method"] and cell["current"] and not cell["custom"] and not cell["smoke"]
        }
        return cls(store, cells, pairs, alike, matches)

    def newest(self, cell: Cell) -> bool:
        """Whether no cell of a newer engine, adapter or code, or of the task's own rows, has taken the cell's place."""
        if cell["current"]:
            return True
        rivals = [other for other in self.alike.get(name_of(cell), []) if other["current"]]
        return any(all(other[key] == cell[key] for key in VERSIONS) for other in rivals)

    def superseded(self, cell: Cell) -> Iterable[str]:
        """In what a cell differs from the one that its method's name stands for."""
        rivals = [other for other in self.alike.get(name_of(cell), []) if other["current"]]
        for key, word in VERSIONS.items():
            if rivals and not cell["current"] and rivals[0][key] != cell[key]:
                yield word.format(cell[key])

    def partners(self, cell: Cell) -> list[str]:
        """The runs that the cell's differences are taken to."""
        return [
            self.pairs[run, reference][1]
            for run in cell["run_ids"]
            for reference in (cell["baseline"], PLAIN)
            if (run, reference) in self.pairs
        ]

    def results(self, cells: Sequence[Cell]) -> list[Result]:
        """The cells built, in order."""
        heads = [head_of(cell) for cell in cells]
        costs, taken = self.store.overheads(heads), self.store.records(sorted(set(heads)))
        return [self.result(cell, costs.get(head_of(cell)), taken[head_of(cell)]) for cell in cells]

    def result(self, cell: Cell, cost: dict[str, Any] | None, record: Record) -> Result:
        """One cell built, from the overhead row and the record of its head."""
        scores = dict(zip(cell["seeds"], cell["scores"], strict=True))
        runs = dict(zip(cell["seeds"], cell["run_ids"], strict=True))
        metric = kinds.metrics().get(cell["metric"])
        at_chance = chance.seeds(record, scores)
        learned = chance.learned(scores, at_chance)
        stat = clipped(summarise(learned), *(metric.bounds if metric is not None else (None, None)))
        items = record.metrics.test_items if record.metrics is not None else None
        references = {cell["baseline"], PLAIN}
        partners = {
            name: {seed: self.pairs[run, name] for seed, run in runs.items() if (run, name) in self.pairs}
            for name in references
        }
        theirs = {name: {seed: score for seed, (score, _) in found.items()} for name, found in partners.items()}
        matched, to_matched, unmatched = self._matched(cell, learned)
        return Result(
            cell=cell,
            record=record,
            scores=scores,
            runs=runs,
            stat=stat,
            cost=cost if cost and cost.get("step_ratio") is not None else None,
            totals=totals(record),
            stages=tuple(lines(record)),
            theirs=theirs,
            their_runs={name: {seed: run for seed, (_, run) in found.items()} for name, found in partners.items()},
            deltas={
                name: None if name == cell["method"] and not cell["custom"] else paired(learned, theirs[name], cell)
                for name in references
            },
            unpaired={name: obstacle(cell, self._references(cell, name)) for name in references} | unmatched,
            matched=matched,
            to_matched=to_matched,
            teacher=taught.score_of(record),
            item_noise=metric.noise(stat.mean, items) if metric is not None else None,
            at_chance=at_chance,
            overrides=settings.overrides(record) if cell["custom"] or self._one_of_several(cell) else {},
        )

    def _matched(
        self, cell: Cell, scores: Mapping[int, float]
    ) -> tuple[Cell | None, PairedDelta | None, dict[str, str]]:
        """The compute-matched cell of a cell, the difference to it, and why there is none, by its name."""
        if not cell["current"] or cell["custom"] or cell["smoke"] or cell["ruleset"] != AS_PUBLISHED:
            return None, None, {}
        found = self.matches.get((cell["method"], *_place(cell)))
        if found is None:
            return None, None, {}
        why = obstacle(cell, [found], any_protocol=True)
        delta = None if why else paired(scores, dict(zip(found["seeds"], found["scores"], strict=True)), cell)
        return found, delta, {found["method"]: why}

    def _one_of_several(self, cell: Cell) -> bool:
        """Whether the cell's name alone does not say what was run."""
        return any(other["spec_hash"] != cell["spec_hash"] for other in self.alike.get(name_of(cell), []))

    def _references(self, cell: Cell, reference: str) -> list[Cell]:
        return self.alike.get(name_of({**cell, "method": reference, "custom": False}), [])


def _place(cell: Cell) -> tuple[Any, ...]:
    return (cell["task"], cell["task_version"], cell["device_class"])


def name_of(cell: Cell) -> tuple[Any, ...]:
    """What a cell is called: overridden settings belong to the name."""
    spec = cell["spec_hash"] if cell["custom"] else None
    keys = ("method", "ruleset", "task", "task_version", "device_class", "custom", "smoke")
    return (*(cell[key] for key in keys), spec)


def head_of(cell: Cell) -> str:
    """The run that a cell's cost is read from: the one whose overhead it shows, else its first."""
    return str(cell["overhead_run_id"] or cell["run_ids"][0])
