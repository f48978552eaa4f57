"""What commands print: tables and facts, for people; JSON comes from the same rows."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.terminal.sheet import Screen, Sheet

if TYPE_CHECKING:  # `list` and `show` answer at once: they load neither torch nor the index and the statistics
    from kdbench.checks.result import CheckResult
    from kdbench.records.files import Record
    from kdbench.results.cells import ResultRow
    from kdbench.results.claims import Comparison, PublishedFigure
    from kdbench.results.compare import Pairing
    from kdbench.stats import PairedDelta

PIPE_WIDTH = 200
"""Columns of a table that goes into a pipe, where no terminal says how wide it is."""

RESULTS = {
    ">score\n(95 % t)": 12, ">\nn": 8, ">test\nnoise": 3, ">its\nteacher": 4, ">Δ baseline\n(95 % t)": 6,
    ">Δ plain\n(95 % t)": 11, ">step time\n× plain (95 %)": 7, ">recipe\n× plain": 10, ">with\nteacher": 5,
    ">peak\nmemory": 2, ">train-only\nparameters": 1, "remarks": 9,
}  # fmt: skip
"""Columns of a table of results with their weights where there is no room for all: what it gains, what it costs."""


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough in a pipe."""
    found = Screen(highlight=False)
    return found if found.is_terminal else Screen(highlight=False, width=PIPE_WIDTH)


def table(title: str, *columns: str, weight: Sequence[int] | None = None) -> Sheet:
    """An empty table; a column whose heading starts with ``>`` is right-aligned, and of numbers that stay whole.

    Args:
        weight: of each column but the first, see :class:`kdbench.terminal.sheet.Sheet`.
    """
    made = Sheet(title, weight)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.startswith(">") else "left"
        made.add_column(escape(column.lstrip(">")), justify=justify)
    return made


def interval(mean: float, lo: float | None, hi: float | None, *, digits: int = 2, sign: bool = False) -> str:
    """``87.4 ± 1.2``, ``98.9 [95.1, 100.0]`` where the interval is cut, or the value alone without one."""
    form = f"{'+' if sign else ''}.{digits}f"
    shown = format(mean, form)
    if lo is None or hi is None:
        return shown
    if math.isclose(hi - mean, mean - lo, rel_tol=1e-6, abs_tol=1e-9):
        return f"{shown} ± {(hi - lo) / 2:.{digits}f}"
    return f"{shown} [{format(lo, form)}, {format(hi, form)}]"


def difference(delta: PairedDelta | None) -> str:
    """A paired difference, ``–`` without one."""
    return "–" if delta is None else interval(delta.mean, delta.lo, delta.hi, sign=True)


def amount(value: float | None, unit: str = "", digits: int = 1) -> str:
    """A figure with its unit, ``–`` when there is none."""
    return "–" if value is None else f"{value:,.{digits}f}{unit}"


def results(rows: Sequence[ResultRow]) -> list[Sheet]:
    """Score beside cost, a line a cell: one table a task, device class and ruleset, as only such rows compare.

    Methods that do not apply have no line of their own: below the table each reason names them.
    """
    tables: dict[tuple[str, int, str, str], Sheet] = {}
    kept_out: dict[tuple[str, int, str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = (row.task, row.version, row.device_class, row.ruleset)
        if key not in tables:
            tables[key] = table(_heading(row, rows), "method", *RESULTS, weight=list(RESULTS.values()))
        if row.state.startswith("not applicable"):
            kept_out[key][", ".join([row.state, *row.remarks])].append(row.method)
            continue
        cost = row.cost or {}
        ratio = "–"
        if cost:
            mode = "" if cost["mode"] == "full" else f" {cost['mode']}"
            ratio = f"{cost['step_ratio']:.2f} [{cost['lo']:.2f}, {cost['hi']:.2f}]{mode}"
        remarks = list(row.remarks) if row.state == "ok" else [row.state, *row.remarks]
        tables[key].add_row(
            escape(row.method), "–" if row.score is None else interval(row.score.mean, row.score.lo, row.score.hi),
            str(row.score.n) if row.score else "0", "–" if row.item_noise is None else f"± {row.item_noise:.2f}",
            amount(row.teacher, digits=2), difference(row.to_baseline), difference(row.to_plain), ratio,
            _total(row, "recipe"), _total(row, "full"),
            amount(cost.get("peak_alloc_mib"), " MiB"), amount(cost.get("train_only_params"), "", 0),
            escape(", ".join(remarks)),
        )  # fmt: skip
    for key, reasons in kept_out.items():
        tables[key].notes += [escape(f"{reason} ({', '.join(methods)})") for reason, methods in reasons.items()]
    return list(tables.values())


def _heading(row: ResultRow, rows: Sequence[ResultRow]) -> str:
    """Task, metric, baseline and device class; a row without a score knows no metric, so any row of the task tells."""
    task = (row.task, row.version)
    told = next((other for other in rows if (other.task, other.version) == task and other.metric), row)
    ruled = "" if row.ruleset == AS_PUBLISHED else f", {row.ruleset}"
    where = f"{row.task}@v{row.version} on {row.device_class}{ruled}"
    return escape(f"{where}: {told.metric}, {told.unit}, baseline {told.baseline}" if told.metric else where)


def _total(row: ResultRow, which: str) -> str:
    ratio = row.totals.ratio(which) if row.totals else None
    return amount(ratio, "", 2)


def as_json(row: ResultRow) -> dict[str, Any]:
    """A row as JSON data."""

    def delta(d: PairedDelta | None) -> dict[str, Any] | None:
        return None if d is None else {"mean": d.mean, "lo": d.lo, "hi": d.hi, "n": d.n}

    keep = ("mode", "step_ratio", "lo", "hi", "step_ms", "plain_step_ms", "peak_alloc_mib", "train_only_params")
    return {
        "method": row.method,
        "task": row.task,
        "version": row.version,
        "device_class": row.device_class,
        "ruleset": row.ruleset,
        "metric": row.metric,
        "unit": row.unit,
        "higher_is_better": row.higher_is_better,
        "state": row.state,
        "marks": list(row.marks),
        "overrides": dict(row.overrides),
        "current": row.current,
        "remarks": list(row.remarks),
        "score": None if row.score is None else {k: getattr(row.score, k) for k in ("n", "mean", "sd", "lo", "hi")},
        "baseline": row.baseline,
        "delta_baseline": delta(row.to_baseline),
        "delta_plain": delta(row.to_plain),
        "item_noise": row.item_noise,
        "teacher_score": row.teacher,
        "teachers": [dict(teacher) for teacher in row.teachers],
        "totals_h": None if row.totals is None else dataclasses.asdict(row.totals),
        "overhead": None if row.cost is None else {k: row.cost.get(k) for k in keep},
        "run_ids": list(row.run_ids),
    }


def run_line(record: Record) -> str:
    """One line on a finished run."""
    head = f"{record.method_name} on {record.task.label}, seed {record.seed}: "
    if record.status == "ok" and record.score is not None:
        from kdbench.records import counted
        from kdbench.results.taught import words

        ratio = f", step time {counted.estimate(record.measured).ratio:.2f} × plain" if record.measured else ""
        teachers = f", {told}" if (told := words(record)) else ""
        return f"{head}{record.task.metric_primary} {record.score:.2f} {record.task.unit}{teachers}{ratio}"
    message = " ".join(record.error.message.split()) if record.error else ""
    return f"{head}{record.status.replace('_', ' ')}: {message}"


def checks(name: str, found: Sequence[CheckResult]) -> list[str]:
    """One line on a method or task, and one on each rule that it breaks or that has something to say."""
    count = {outcome: sum(r.outcome == outcome for r in found) for outcome in ("ok", "failed", "skipped")}
    state = "FAILED" if count["failed"] else "ok"
    lines = [f"{escape(name)}: {state}, {count['ok']} rules kept, {count['failed']} broken, {count['skipped']} skipped"]
    for result in found:
        if result.message:
            said = "note" if result.outcome == "ok" else result.outcome
            where = f" on a {result.task} task" if result.task else ""
            lines.append(f"  {said}: {escape(result.rule)}{where}: {escape(result.message)}")
    return lines


def pairings(found: Sequence[Pairing]) -> Table:
    """Two methods on every task they share."""
    made = table("", "task", ">first", ">second", ">second - first (95 % t)", ">n", ">recipe cost ratio", "device")
    for item in found:
        scores = [
            f"{escape(row.label)} {interval(row.score.mean, row.score.lo, row.score.hi)}"
            for row in (item.first, item.second)
            if row.score is not None
        ]
        made.add_row(
            escape(item.first.task), *scores, difference(item.delta), str(item.delta.n if item.delta else 0),
            amount(item.cost, "", 2), escape(item.first.device_class),
        )  # fmt: skip
    return made


def row_by_row(found: Sequence[Pairing]) -> list[Table]:
    """What test rows say of two networks of one seed: a table of rights and wrongs, one of numbers, as far as kept."""
    return [made for made in (_rights(found), _row_means(found)) if made.row_count]


def _rights(found: Sequence[Pairing]) -> Table:
    lines = [(item, one) for item in found for one in item.row_by_row]
    made = table(
        "test rows that one network alone is right on; p speaks of these two networks, not of the methods",
        "task", ">seed", ">rows", ">first alone", ">second alone", ">McNemar p",
    )  # fmt: skip
    for item, one in lines:
        counts = (one.seed, one.rows, one.first_alone, one.second_alone)
        made.add_row(escape(item.first.task), *map(str, counts), f"{one.p:.2g}")
    return made


def _row_means(found: Sequence[Pairing]) -> Table:
    made = table(
        "differences row by row; intervals over test rows speak of these two networks, not of the methods",
        "task", ">seed", ">rows", ">second better by",
    )  # fmt: skip
    for item in found:
        for one in item.row_means:
            made.add_row(escape(item.first.task), str(one.seed), str(one.delta.n), difference(one.delta))
    return made


def pairing_json(item: Pairing) -> dict[str, Any]:
    """A pairing as JSON data."""
    delta = item.delta
    return {
        "first": as_json(item.first),
        "second": as_json(item.second),
        "delta": None if delta is None else {"mean": delta.mean, "lo": delta.lo, "hi": delta.hi, "n": delta.n},
        "recipe_ratio": item.cost,
        "step_ratio": item.step,
        "verdict": item.words,
        "row_by_row": [dataclasses.asdict(one) for one in item.row_by_row],
        "row_means": [
            {"seed": one.seed, "rows": one.delta.n, "mean": one.delta.mean, "lo": one.delta.lo, "hi": one.delta.hi}
            for one in item.row_means
        ],
    }


def overhead(block: dict[str, Any], title: str) -> Table:
    """An overhead block, a line a quantity."""
    made = table(title, "quantity", ">value")
    from kdbench.records.schema.overhead import QUANTITIES

    for field, said in QUANTITIES.items():
        made.add_row(", ".join(filter(None, [said.name or said.head, said.unit])), escape(_value(block.get(field))))
    for phase in block.get("phases", []):
        made.add_row(f"Phase {phase['name']}, {phase['steps']} steps", f"{phase['step_ratio']:.3f} × plain")
    return made


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return f"{value[0]:.3f} to {value[1]:.3f}"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def claims(found: Sequence[Comparison], lone: Sequence[PublishedFigure]) -> Table:
    """Published figures beside ours; those without a result of ours stand alone."""
    columns = ("data", "pair", "metric", ">claimed", ">ours", ">difference", "source", "why they may differ")
    made = table("claimed and reproduced", *columns)
    for item in found:
        ours = "–" if item.ours is None else interval(item.ours.mean, item.ours.lo, item.ours.hi)
        gap = "–" if item.difference is None else interval(*item.difference, sign=True)
        _claim_row(made, item.claim, ours, gap, "; ".join((f"our task {item.task}", *item.reasons)))
    for claim in lone:
        _claim_row(made, claim, "–", "–", "no result of ours")
    return made


def _claim_row(made: Table, claim: PublishedFigure, ours: str, gap: str, why: str) -> None:
    pair = f"{claim.teacher or 'none'} → {claim.student}"
    value = f"{claim.value:.2f}" + (f" ± {claim.std:.2f}" if claim.std is not None else "")
    source = claim.source if claim.verified else f"{claim.source} (unverified)"
    made.add_row(claim.dataset, pair, claim.metric, value, ours, gap, escape(source), escape(why))
