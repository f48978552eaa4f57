"""Cells of what training and the deployed network cost; times of another processor than most rows' say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from kdbench.leaderboard.draw.numbers import NONE, TIMES, between, significant, times
from kdbench.leaderboard.model.entries import Entry, TaskVersion
from kdbench.leaderboard.model.ratios import Ratio, launched, over_plain, step_ratio
from kdbench.leaderboard.tables.cells import Context, TableCell, measured_in, runs_behind
from kdbench.records.schema.overhead import QUANTITIES
from kdbench.results.costs import Totals
from kdbench.specs.registry import PLAIN

NOT_CONVERGED, CLOCK = "not converged", "wall clock"


def launch_words(rows: Iterable[Entry]) -> str:
    """Why cost ratios of some rows do not carry over to larger nets, and on which tasks; "" where they may."""
    tasks: dict[TaskVersion, list[Entry]] = defaultdict(list)
    for row in rows:
        tasks[row.task].append(row)
    told = [found for of_task in tasks.values() if (found := launched(of_task)) is not None]
    if not told:
        return ""
    row, work, step = max(told, key=lambda one: one[1] / one[2])
    several = len(tasks) > 1
    where = f"on {', '.join(sorted({one.task.label for one, *_ in told}))}" if several else "here"
    return (
        f"Cost ratios {where} are of launching kernels and do not carry over to larger nets: {row.method} needs "
        f"{significant(work)} times the operations of plain and {significant(step)} times its time"
        f"{f' on {row.task.label}' if several else ''}."
    )


def _on(row: Entry, ctx: Context) -> tuple[str, ...]:
    """The processor that a row's times were measured on, where that of most rows beside it is another."""
    usual = ctx.board.processor
    return (f"on {row.processor}",) if row.result.cost is not None and usual not in (None, row.processor) else ()


def cautions(row: Entry) -> tuple[str, ...]:
    """What a reader of a row's step time must know of its measurement."""
    over = row.result.cost
    if over is None:
        return ()
    told = {
        "quick": over["mode"] == "quick",
        NOT_CONVERGED: not over["converged"],
        "noisy machine": over["noise_flag"],
        "contended": over["contended"],
    }
    return tuple(word for word, holds in told.items() if holds)


def ratio_cell(row: Entry, ctx: Context) -> TableCell:
    """Step-time ratio, bold only where its interval lies below all others."""
    ratio = step_ratio(row)
    if ratio is None:
        return TableCell(NONE, None, sub="not measured")
    if row.method == PLAIN:
        return TableCell(f"1 {TIMES}", 1.0, sub="reference")
    flags = (*cautions(row), *_on(row, ctx))
    rivals = [
        r
        for other in ctx.board.ranked
        if other is not row and other.method != PLAIN and not other.elsewhere and (r := step_ratio(other))
    ]
    mark = "best" if rivals and not flags and all(ratio[2] < lo for _, lo, _ in rivals) else ""
    return TableCell(
        times(ratio[0]),
        ratio[0],
        sub=between(ratio[1], ratio[2], 2),
        tags=flags,
        mark="" if row.apart else mark,
        lo=ratio[1],
        hi=ratio[2],
        behind=measured_in(row),
    )


def ratio_text(ratio: Ratio | None, method: str, elsewhere: str = "", behind: str = "") -> TableCell:
    """A ratio over tasks to plain's cost, with its interval where one is known; none of other processors than most."""
    if ratio is None:
        return TableCell(NONE, None, sub=f"measured on {elsewhere}" if elsewhere else "not measured")
    if method == PLAIN:
        return TableCell(f"1 {TIMES}", 1.0, sub="reference")
    value, lo, hi = ratio
    if hi <= lo:
        return TableCell(times(value), value, behind=behind)
    return TableCell(times(value), value, sub=between(lo, hi, 2), lo=lo, hi=hi, behind=behind)


def _over(row: Entry, field: str) -> float | None:
    return row.result.cost[field] if row.result.cost else None


def _plain_ratio(row: Entry, field: str) -> str:
    value = over_plain(row, field)
    return f"{times(value)} plain" if value is not None else ""


def measured(
    field: str, show: Callable[[float], str] = significant, *, ratio: bool = False
) -> Callable[[Entry, Context], TableCell]:
    """Cells of one measured quantity of the overhead block; a time says where another processor took it."""
    timed = QUANTITIES[field].part in ("timing", "loader")

    def make(row: Entry, ctx: Context) -> TableCell:
        value = _over(row, field)
        if value is None:
            return TableCell(NONE, None, sub="not measured")
        sub = _plain_ratio(row, field) if ratio and row.method != PLAIN else ""
        return TableCell(show(value), value, sub=sub, tags=_on(row, ctx) if timed else (), behind=measured_in(row))

    return make


def based(costs: Totals, *, teacher: bool = False) -> tuple[str, ...]:
    """What hours of the recipe go by; ``teacher``: of the full cost. A busy machine stretches those of the clock."""
    if costs.basis == "measured":
        return (CLOCK,)
    share = 100 * costs.clock_h / costs.recipe_h if costs.recipe_h else 0.0
    part = (f"{share:.0f} % {CLOCK}",) if share >= 1 and costs.basis != "cited" else ()
    taught = teacher and costs.full_h is not None and costs.full_h > costs.recipe_h
    return (costs.basis, *part, *((f"teacher {CLOCK}",) if taught else ()))


def recipe_cell(row: Entry, ctx: Context) -> TableCell:
    """Cost of the whole recipe."""
    costs = row.result.totals
    sub = f"{times(row.recipe_ratio)} plain" if row.recipe_ratio and row.method != PLAIN else ""
    return TableCell(
        significant(costs.recipe_h),
        costs.recipe_h,
        sub=sub,
        tags=(*based(costs), *_on(row, ctx)),
        behind=measured_in(row),
    )


def full_cell(row: Entry, ctx: Context) -> TableCell:
    """The same with the teacher."""
    costs = row.result.totals
    if costs.full_h is None:
        return TableCell(NONE, None, sub="teacher’s cost not known")
    return TableCell(
        significant(costs.full_h),
        costs.full_h,
        tags=(*based(costs, teacher=True), *_on(row, ctx)),
        behind=measured_in(row),
    )


def energy_cell(row: Entry, ctx: Context) -> TableCell:
    """Energy of all stages."""
    if row.energy_kwh is None:
        return TableCell(NONE, None, sub="not measured")
    return TableCell(significant(row.energy_kwh), row.energy_kwh, behind=runs_behind(row.cell))


def deployed(field: str, show: Callable[[float], str] = significant) -> Callable[[Entry, Context], TableCell]:
    """Cells of one measured quantity of the deployed network; a time says where another processor took it."""

    def make(row: Entry, ctx: Context) -> TableCell:
        value = row.deploy[field] if row.deploy else None
        if value is None:
            return TableCell(NONE, None, sub="not measured")
        changed = field == "params" and row.deploy is not None and not row.deploy["equals_plain"]
        tags = ("not the plain student",) if changed else _on(row, ctx) if field.startswith("latency") else ()
        return TableCell(show(value), value, tags=tags, behind=measured_in(row))

    return make
