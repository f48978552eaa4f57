"""Cells as people compare them: score, differences to baseline and plain, cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.records import settings
from kdbench.records.files import Record
from kdbench.results import chance, taught
from kdbench.results.costs import Totals, totals
from kdbench.results.pairing import obstacle
from kdbench.specs.registry import PLAIN
from kdbench.stats import (
    CellStat,
    PairedDelta,
    clipped,
    clipped_difference,
    paired_delta,
    summarise,
)

Cell = dict[str, Any]
VERSIONS = {
    "engine_version": "engine version {}",
    "adapter_version": "adapter {}",
    "known": "other code or files",
    "data": "other data: {}",
    "test_sha256": "other test rows",
}
"""Columns of ``v_cell`` by which a newer cell takes an older one's place, and what is said of the older."""


@dataclass(frozen=True)
class Row:
    """One configuration of a method on one task and device class.

    Attributes:
        score: over seeds, in the task's unit; ``scores`` by seed.
        to_baseline, to_plain: seed-paired differences, positive where the method is better; None without a partner.
        cost: the overhead block's columns, None when it was not measured; ``totals`` the device-hours of one run.
        teacher: the score of what the student learnt from; ``teachers`` role, net and score of each.
        item_noise: standard error from the number of test items alone, in points; None where the score is no share.
        state: ``ok``, or why there is no score.
        overrides: settings that are not the method's and the task's own, by the key that sets them.
        current: whether it is what the method's name stands for; not one of an older configuration, or a repeat.
        cell: its row of the index's ``v_cell``, empty without a score.
        repeats: the run that counts instead, of a row that is a repeat.
        remarks: what a reader must know of the row.
    """

    method: str
    task: str
    version: int
    device_class: str
    metric: str
    unit: str
    higher_is_better: bool
    baseline: str
    score: CellStat | None
    to_baseline: PairedDelta | None
    to_plain: PairedDelta | None
    cost: dict[str, Any] | None
    run_ids: tuple[str, ...]
    scores: Mapping[int, float] = field(default_factory=dict)
    totals: Totals | None = None
    item_noise: float | None = None
    teacher: float | None = None
    teachers: tuple[Mapping[str, Any], ...] = ()
    marks: tuple[str, ...] = ()
    state: str = "ok"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    current: bool = True
    cell: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    repeats: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The method with its overrides, as ``kdbench compare`` takes it."""
        return " ".join([self.method, *settings.as_words(self.overrides)])


def rows(store: Store, *, older: bool = False, **where: Any) -> list[Row]:
    """All configurations of an index, and the combinations that gave no score, with their reason.

    Args:
        older: also cells of an adapter or engine older than the newest.
        where: columns of the cells to keep, e.g. ``task="digits"``.
    """
    book = _Book.of(store, where)
    wanted = {cell["run_ids"][0] for cell in store.cells(**where)}
    found = book.rows([cell for cell in book.cells if cell["run_ids"][0] in wanted and (older or book.newest(cell))])
    have = {(row.method, row.task, row.version, row.device_class) for row in found if "custom" not in row.marks}
    keys = {k: v for k, v in where.items() if k in ("method", "task", "task_version", "device_class")}
    for gap in store.coverage(**keys):
        key = (gap["method"], gap["task"], gap["task_version"], gap["device_class"])
        if key not in have and not gap["ok"]:
            state = "not applicable" if gap["not_applicable"] else "withdrawn" if gap["withdrawn"] else "failed"
            found.append(_empty(gap, f"{state}: {gap['last_error']}" if gap["last_error"] else state))
    return found


def rows_of_runs(store: Store, records: Sequence[Record]) -> list[Row]:
    """The configurations that runs of one task belong to, those they are compared with, and the runs without a score.

    Args:
        records: of one configuration.
    """
    first = records[0]
    book = _Book.of(
        store, {"task": first.task.name, "task_version": first.task.version, "device_class": first.device_class}
    )
    ids = {record.run_id for record in records}
    own = [cell for cell in book.cells if ids & set(cell["run_ids"])]
    partners = {run for cell in own for run in book.partners(cell)}
    shown = [cell for cell in book.cells if cell in own or partners & set(cell["run_ids"])]
    counted = {run for cell in own for run in cell["run_ids"]}
    repeats = [record for record in records if record.status == "ok" and record.run_id not in counted]
    ended = defaultdict(list)
    for record in records:
        if record.status != "ok":
            message = f": {record.error.message}" if record.error else ""
            ended[f"{record.status.replace('_', ' ')}{message}"].append(record)
    return [
        *book.rows(shown),
        *(book.repeat(record) for record in repeats),
        *(_without_score(state, runs) for state, runs in ended.items()),
    ]


@dataclass(frozen=True)
class _Book:
    """What rows are made from: the cells of some tasks and device classes with all that belongs to them.

    Attributes:
        deltas: (run id, reference method) to (score, the reference's score, its run id).
        alike: cells by what they are called.
    """

    store: Store
    cells: list[Cell]
    deltas: Mapping[tuple[str, str], tuple[float, float, str]]
    alike: Mapping[tuple[Any, ...], list[Cell]]

    @classmethod
    def of(cls, store: Store, where: Mapping[str, Any]) -> _Book:
        """The cells of ``where``, whatever their method: differences need the references too."""
        place = {key: value for key, value in where.items() if key in ("task", "task_version", "device_class")}
        deltas = {
            (row["run_id"], row["reference"]): (row["score"], row["reference_score"], row["reference_run_id"])
            for row in store.deltas(**place)
            if row["run_id"] != row["reference_run_id"]
        }
        cells, alike = store.cells(**place), defaultdict(list)
        for cell in cells:
            alike[_name(cell)].append(cell)
        return cls(store, cells, deltas, alike)

    def newest(self, cell: Cell) -> bool:
        """Whether no cell of a newer engine, adapter or code, or of the task's own rows, has taken the cell's place."""
        if cell["current"]:
            return True
        rivals = [other for other in self.alike[_name(cell)] if other["current"]]
        return any(all(other[key] == cell[key] for key in VERSIONS) for other in rivals)

    def partners(self, cell: Cell) -> list[str]:
        """The runs that the cell's differences are taken to."""
        return [
            self.deltas[run, reference][2]
            for run in cell["run_ids"]
            for reference in (cell["baseline"], PLAIN)
            if (run, reference) in self.deltas
        ]

    def rows(self, cells: Sequence[Cell]) -> list[Row]:
        heads = [head_of(cell) for cell in cells]
        costs, taken = self.store.overheads(heads), self.store.records(heads)
        return _settled([self._row(cell, costs.get(head_of(cell)), taken[head_of(cell)]) for cell in cells])

    def repeat(self, record: Record) -> Row:
        """The row of a run that its cell does not count."""
        ours = self.store.runs(run_id=record.run_id)
        whole = Record.model_validate(record)
        cell: Cell = {
            **(ours[0] if ours else {}), "method": whole.method_name, "seeds": [whole.seed], "scores": [whole.score],
            "run_ids": [whole.run_id], "overhead_run_id": None, "current": False,
        }  # fmt: skip
        made = self._row(cell, self.store.overheads([whole.run_id]).get(whole.run_id), whole)
        counted = [
            run
            for other in self.cells
            for seed, run in zip(other["seeds"], other["run_ids"], strict=True)
            if seed == whole.seed and other["spec_hash"] == whole.spec_hash and other["custom"] == whole.custom
        ]
        repeats = counted[0] if counted and not cell.get("is_withdrawn") else ""
        why = f"a repeat: {repeats[:8]} counts" if repeats else "withdrawn: not counted"
        remarks = (why, *(word for word in made.remarks if not word.startswith("no Δ")))
        return replace(made, repeats=repeats, remarks=remarks)

    def _row(self, cell: Cell, cost: dict[str, Any] | None, record: Record) -> Row:
        own = dict(zip(cell["seeds"], cell["scores"], strict=True))
        metric = kinds.metrics().get(cell["metric"])
        bounds = metric.bounds if metric is not None else (None, None)
        stat = clipped(summarise(own), *bounds)
        items = record.metrics.test_items if record.metrics is not None else None
        deltas = {name: self._against(cell, name, bounds) for name in (cell["baseline"], PLAIN)}
        row = Row(
            method=cell["method"],
            task=cell["task"],
            version=cell["task_version"],
            device_class=cell["device_class"],
            metric=cell["metric"],
            unit=cell["unit"],
            higher_is_better=cell["higher_is_better"],
            baseline=cell["baseline"],
            score=stat,
            to_baseline=deltas[cell["baseline"]],
            to_plain=deltas[PLAIN],
            cost=cost if cost and cost.get("step_ratio") is not None else None,
            run_ids=tuple(cell["run_ids"]),
            scores=own,
            totals=totals(record),
            item_noise=metric.noise(stat.mean, items) if metric is not None else None,
            teacher=taught.score_of(record),
            teachers=tuple(taught.each(record)),
            marks=tuple(name for name in ("custom", "smoke", "own_protocol") if cell[name]),
            overrides=settings.overrides(record) if cell["custom"] or self._one_of_several(cell) else {},
            current=cell["current"],
            cell=cell,
        )
        return replace(row, remarks=tuple(self._remarks(cell, row, record)))

    def _against(self, cell: Cell, reference: str, bounds: tuple[float | None, float | None]) -> PairedDelta | None:
        if reference == cell["method"] and not cell["custom"]:
            return None
        pairs = {
            seed: self.deltas[run, reference]
            for seed, run in zip(cell["seeds"], cell["run_ids"], strict=True)
            if (run, reference) in self.deltas
        }
        if not pairs:
            return None
        direction: Literal["max", "min"] = "max" if cell["higher_is_better"] else "min"
        ours = {seed: score for seed, (score, _, _) in pairs.items()}
        theirs = {seed: score for seed, (_, score, _) in pairs.items()}
        return clipped_difference(paired_delta(ours, theirs, direction), *bounds)

    def _one_of_several(self, cell: Cell) -> bool:
        """Whether the cell's name alone does not say what was run."""
        return any(other["spec_hash"] != cell["spec_hash"] for other in self.alike[_name(cell)])

    def _remarks(self, cell: Cell, row: Row, record: Record) -> Iterable[str]:
        """What the reader must know, the most telling first."""
        words = ", ".join(settings.as_words(row.overrides))
        if cell["custom"]:
            yield f"custom: {words}" if words else "custom"
        elif words:
            yield f"an older task file or card: {words}"
        yield from (mark.replace("_", " ") for mark in row.marks if mark != "custom")
        same = self.alike[_name(cell)]
        if len({other["teacher_sha256"] for other in same}) > 1 and cell["teacher_sha256"]:
            yield f"teacher {cell['teacher_sha256'][:8]}"
        if not cell["smoke"] and row.score and taught.is_worse(row.teacher, row.score.mean, row.higher_is_better):
            yield "its teacher is worse"
        yield from self._superseded(cell)
        yield from filter(None, [chance.words(len(chance.seeds(record, row.scores)), len(row.scores))])
        for reference, delta in {row.baseline: row.to_baseline, PLAIN: row.to_plain}.items():
            if delta is None and reference != cell["method"]:
                why = obstacle(cell, self._references(cell, reference))
                if why:
                    yield f"no Δ to {reference}: {why}"
        if row.score is not None and row.score.note:
            yield row.score.note

    def _superseded(self, cell: Cell) -> Iterable[str]:
        """In what the cell differs from the one that its method's name stands for."""
        rivals = [other for other in self.alike[_name(cell)] if other["current"]]
        for key, word in VERSIONS.items():
            if rivals and not cell["current"] and rivals[0][key] != cell[key]:
                yield word.format(cell[key])

    def _references(self, cell: Cell, reference: str) -> list[Cell]:
        return self.alike.get(_name({**cell, "method": reference, "custom": False}), [])


def _settled(found: list[Row]) -> list[Row]:
    """Rows of which the present configuration is the current one, although an older one may have more seeds."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in found:
        groups[_name(row.cell)].append(row)
    chosen = []
    for alike in groups.values():
        newest = [row.cell for row in alike if row.current]
        present = [
            row
            for row in alike
            if not row.overrides and all(row.cell[key] == cell[key] for cell in newest for key in VERSIONS)
        ]
        if present and not any(row.current for row in present):
            chosen.append(max(present, key=lambda row: len(row.scores)))
    for row in chosen:
        found = [
            replace(other, current=other is row) if _name(other.cell) == _name(row.cell) else other for other in found
        ]
    return found


def _name(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a cell is called: overridden settings belong to the name."""
    spec = cell["spec_hash"] if cell["custom"] else None
    keys = ("method", "task", "task_version", "device_class", "custom", "smoke")
    return (*(cell[key] for key in keys), spec)


def head_of(cell: Cell) -> str:
    """The run that a cell's cost is read from."""
    return str(cell["overhead_run_id"] or cell["run_ids"][0])


def _without_score(state: str, runs: Sequence[Record]) -> Row:
    """Runs that ended alike."""
    record, changed = runs[0], settings.overrides(runs[0])
    where = {
        "method": record.method_name, "task": record.task.name, "task_version": record.task.version,
        "device_class": record.device_class,
    }  # fmt: skip
    marks = [name for name in ("custom", "smoke", "own_protocol") if getattr(record, name)]
    ids = tuple(run.run_id for run in runs)
    return replace(
        _empty(where, state),
        run_ids=ids,
        overrides=changed,
        marks=tuple(marks),
        remarks=(*settings.as_words(changed), f"seed {', '.join(str(run.seed) for run in runs)}"),
    )


def _empty(gap: Mapping[str, Any], state: str) -> Row:
    return Row(
        gap["method"], gap["task"], gap["task_version"], gap["device_class"], "", "", True, "",
        None, None, None, None, (), state=state,
    )  # fmt: skip


def in_order(found: list[Row], key: str) -> list[Row]:
    """Rows best or cheapest first, those without the figure last; ``task`` keeps the index's order.

    Args:
        key: ``task``, ``score`` or ``delta`` (within each task), or a column of the overhead.
    """

    def figure(row: Row) -> float | None:
        if key == "score":
            sign = -1.0 if row.higher_is_better else 1.0
            return None if row.score is None else sign * row.score.mean
        if key == "delta":
            return None if row.to_baseline is None else -row.to_baseline.mean
        value = (row.cost or {}).get(key)
        return None if value is None else float(value)

    def place(row: Row) -> tuple[str, bool, float]:
        value = figure(row)
        return (row.task if key in ("score", "delta") else "", value is None, value or 0.0)

    return found if key == "task" else sorted(found, key=place)


def step_ratios(index: Path) -> dict[str, float]:
    """Median over all measured cells of each method's step time over plain's; nothing when the index cannot be read."""
    try:
        with Store(index, read_only=True, wait_s=0.0) as store:
            found = store.query(
                "SELECT method, median(step_ratio) AS ratio FROM runs JOIN overhead USING (run_id)"
                " WHERE NOT custom AND NOT smoke AND step_ratio IS NOT NULL GROUP BY method"
            )
    except UserError:
        return {}
    return {row["method"]: row["ratio"] for row in found}
