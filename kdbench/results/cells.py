"""Cells as people compare them: score, differences to baseline and plain, cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.index.store import Store
from kdbench.records import settings
from kdbench.records.files import Record
from kdbench.results import chance, rulesets, taught
from kdbench.results.book import VERSIONS, Book, Result, name_of
from kdbench.results.costs import Totals
from kdbench.results.pairing import Cell
from kdbench.specs.overrides import as_words
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import CellStat, PairedDelta

OF_ONE_CELL = (
    "method", "task", "task_version", "device_class", "spec_hash", *VERSIONS, "teacher_sha256", "custom", "smoke",
)  # fmt: skip
"""Columns in which the runs of a cell agree."""


@dataclass(frozen=True)
class ResultRow:
    """One configuration of a method on one task and device class.

    Attributes:
        score: over seeds, in the task's unit; ``scores`` by seed.
        to_baseline, to_plain: seed-paired differences, positive where the method is better; None without a partner.
        cost: the overhead block's columns, None when it was not measured; ``totals`` the device-hours of one run.
        teacher: the score of what the student learnt from; ``teachers`` role, net and score of each.
        item_noise: standard error from the number of test items alone, in points; None where the score is no share.
        ruleset: by which hyper-parameters it is compared (:mod:`kdbench.specs.tuned`).
        state: ``ok``, or why there is no score.
        overrides: settings that are not the method's and the task's own, by the key that sets them.
        current: whether it is what the method's name stands for; not one of an older configuration, or a repeat.
        cell: its row of the index's ``v_cell``, empty without a score.
        processor: the model that its cost was measured on.
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
    ruleset: str = AS_PUBLISHED
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
    processor: str = ""
    repeats: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The method with its overrides, as ``kdbench compare`` takes it."""
        return " ".join([self.method, *as_words(self.overrides)])


def rows(store: Store, *, older: bool = False, ruleset: str | None = None, **where: Any) -> list[ResultRow]:
    """All configurations of an index, and the combinations that gave no score, with their reason.

    Args:
        older: also cells of an adapter or engine older than the newest.
        ruleset: of these rulesets alone, see :func:`kdbench.results.rulesets.chosen`; of all when None.
        where: columns of the cells to keep, e.g. ``task="digits"``.

    Raises:
        UserError: no such ruleset, or no run of it.
    """
    if ruleset is not None:
        where["ruleset"] = rulesets.chosen(store, ruleset)
    book = Book.of(store, where)
    wanted = {cell["run_ids"][0] for cell in store.cells(**where)}
    found = _rows(book, [c for c in book.cells if c["run_ids"][0] in wanted and (older or book.newest(c))])
    have = {
        (row.method, row.ruleset, row.task, row.version, row.device_class) for row in found if "custom" not in row.marks
    }
    keys = {k: v for k, v in where.items() if k in ("method", "ruleset", "task", "task_version", "device_class")}
    for gap in store.coverage(**keys):
        key = (gap["method"], gap["ruleset"], gap["task"], gap["task_version"], gap["device_class"])
        if key not in have and not gap["ok"]:
            state = "not applicable" if gap["not_applicable"] else "withdrawn" if gap["withdrawn"] else "failed"
            why = (gap["last_error"] or "").removeprefix("NotApplicable: ")
            found.append(_empty(gap, f"{state}: {why}" if why else state))
    return found


def rows_of_runs(store: Store, records: Sequence[Record]) -> list[ResultRow]:
    """The configurations that runs of one task belong to, those they are compared with, and the runs without a score.

    Args:
        records: of one configuration.
    """
    first = records[0]
    book = Book.of(
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
        *_rows(book, shown),
        *(_repeat(book, record) for record in repeats),
        *(_without_score(state, runs) for state, runs in ended.items()),
    ]


def _rows(book: Book, cells: Sequence[Cell]) -> list[ResultRow]:
    return _settled([_row(book, result) for result in book.results(cells)])


def _repeat(book: Book, record: Record) -> ResultRow:
    """The row of a run that its cell does not count."""
    ours = book.store.runs(run_id=record.run_id)
    whole = Record.model_validate(record)
    cell: Cell = {
        **(ours[0] if ours else {}), "method": whole.method_name, "seeds": [whole.seed], "scores": [whole.score],
        "run_ids": [whole.run_id], "overhead_run_id": None, "current": False,
    }  # fmt: skip
    made = _row(book, book.result(cell, book.store.overheads([whole.run_id]).get(whole.run_id), whole))
    counted = [
        run
        for other in book.cells
        for seed, run in zip(other["seeds"], other["run_ids"], strict=True)
        if seed == whole.seed and ours and all(other[key] == ours[0][key] for key in OF_ONE_CELL)
    ]
    repeats = counted[0] if counted and not cell.get("is_withdrawn") else ""
    why = f"a repeat: {repeats[:8]} counts" if repeats else "withdrawn: not counted"
    remarks = (why, *(word for word in made.remarks if not word.startswith("no Δ")))
    return replace(made, repeats=repeats, remarks=remarks)


def _row(book: Book, result: Result) -> ResultRow:
    cell = result.cell
    row = ResultRow(
        method=cell["method"],
        task=cell["task"],
        version=cell["task_version"],
        device_class=cell["device_class"],
        metric=cell["metric"],
        unit=cell["unit"],
        higher_is_better=cell["higher_is_better"],
        baseline=cell["baseline"],
        ruleset=cell["ruleset"],
        score=result.stat,
        to_baseline=result.deltas[cell["baseline"]],
        to_plain=result.deltas[PLAIN],
        cost=result.cost,
        run_ids=tuple(cell["run_ids"]),
        scores=result.scores,
        totals=result.totals,
        item_noise=result.item_noise,
        teacher=result.teacher,
        teachers=tuple(taught.each(result.record)),
        marks=tuple(name for name in ("custom", "smoke", "own_protocol") if cell[name]),
        overrides=result.overrides,
        current=cell["current"],
        cell=cell,
        processor=result.record.environment.cpu,
    )
    return replace(row, remarks=tuple(_remarks(book, result, row.marks)))


def _remarks(book: Book, result: Result, marks: Sequence[str]) -> Iterable[str]:
    """What the reader must know, the most telling first."""
    cell, words = result.cell, ", ".join(as_words(result.overrides))
    if cell["custom"]:
        yield f"custom: {words}" if words else "custom"
    elif words:
        yield f"an older task file or card: {words}"
    if (search := result.record.search) is not None:
        own = {key: value for key, value in search.values.items() if not key.startswith("pair.")}
        yield f"searched: {', '.join(as_words(own)) or 'the given values were best'}"
    yield from (mark.replace("_", " ") for mark in marks if mark != "custom")
    same = book.alike.get(name_of(cell), [])
    if len({other["teacher_sha256"] for other in same}) > 1 and cell["teacher_sha256"]:
        yield f"teacher {cell['teacher_sha256'][:8]}"
    if not cell["smoke"] and taught.is_worse(result.teacher, result.stat.mean, cell["higher_is_better"]):
        yield "its teacher is worse"
    yield from book.superseded(cell)
    if cell["custom"]:
        yield from _told_apart(cell, same)
    yield from filter(None, [chance.words(len(result.at_chance), len(result.scores))])
    for reference in dict.fromkeys((cell["baseline"], PLAIN)):
        if result.deltas[reference] is None and reference != cell["method"] and result.unpaired[reference]:
            yield f"no Δ to {reference}: {result.unpaired[reference]}"
    if result.stat.note:
        yield result.stat.note


def _told_apart(cell: Cell, alike: Sequence[Cell]) -> Iterator[str]:
    """The code, files and rows of an overridden configuration, where cells of its name differ in them."""
    known = {other["known"]: json.loads(other["known"]) for other in alike if other["known"]}
    if cell["known"] not in known:
        return
    own = known[cell["known"]]
    for what, of in (("code", "code of {} {}"), ("nets", "code of net {} {}"), ("weights", "{} {}")):
        for name, found in own[what].items():
            if any(other[what].get(name) != found for other in known.values()):
                version, plus, digest = found.partition("+")
                yield of.format(name, f"{version[:8]}{plus}{digest[:8]}")
    if len({other["data"] for other in known.values()}) > 1:
        yield f"data {(own['data'] or 'unknown')[:8]}"


def _settled(found: list[ResultRow]) -> list[ResultRow]:
    """Rows of which the present configuration is the current one, although an older one may have more seeds."""
    groups: dict[tuple[Any, ...], list[ResultRow]] = defaultdict(list)
    for row in found:
        groups[name_of(row.cell)].append(row)
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
            replace(other, current=other is row) if name_of(other.cell) == name_of(row.cell) else other
            for other in found
        ]
    return found


def _without_score(state: str, runs: Sequence[Record]) -> ResultRow:
    """Runs that ended alike."""
    record, changed = runs[0], settings.overrides(runs[0])
    where = {
        "method": record.method_name, "ruleset": record.ruleset, "task": record.task.name,
        "task_version": record.task.version, "device_class": record.device_class,
    }  # fmt: skip
    marks = [name for name in ("custom", "smoke", "own_protocol") if getattr(record, name)]
    ids = tuple(run.run_id for run in runs)
    return replace(
        _empty(where, state),
        run_ids=ids,
        overrides=changed,
        marks=tuple(marks),
        remarks=(*as_words(changed), f"seed {', '.join(str(run.seed) for run in runs)}"),
    )


def _empty(gap: Mapping[str, Any], state: str) -> ResultRow:
    return ResultRow(
        gap["method"], gap["task"], gap["task_version"], gap["device_class"], "", "", True, "",
        None, None, None, None, (), ruleset=gap["ruleset"], state=state,
    )  # fmt: skip


def in_order(found: list[ResultRow], key: str) -> list[ResultRow]:
    """Rows best or cheapest first, those without the figure last; ``task`` keeps the index's order.

    Args:
        key: ``task``, ``score`` or ``delta`` (within each task, device class and ruleset, as only such rows compare),
            or a column of the overhead.
    """

    def figure(row: ResultRow) -> float | None:
        if key == "score":
            sign = -1.0 if row.higher_is_better else 1.0
            return None if row.score is None else sign * row.score.mean
        if key == "delta":
            return None if row.to_baseline is None else -row.to_baseline.mean
        value = (row.cost or {}).get(key)
        return None if value is None else float(value)

    def place(row: ResultRow) -> tuple[Any, ...]:
        value = figure(row)
        within = (row.task, row.version, row.device_class, row.ruleset) if key in ("score", "delta") else ()
        return (*within, value is None, value or 0.0)

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
