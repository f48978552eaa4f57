"""Cells of what training and the deployed network cost; times of another processor than most rows' say so."""

from __future__ import annotations

from collections.abc import Callable

from kdbench.leaderboard.draw.numbers import NONE, TIMES, between, significant, times
from kdbench.leaderboard.model.entries import Entry
from kdbench.leaderboard.model.ratios import Ratio, step_ratio
from kdbench.leaderboard.tables.cells import Context, TableCell, measured_in, runs_behind
from kdbench.records.schema.overhead import QUANTITIES
from kdbench.results.costs import Totals
from kdbench.specs.registry import PLAIN


def _on(row: Entry, ctx: Context) -> tuple[str, ...]:
    """The processor that a row's times were measured on, where that of most rows beside it is another."""
    usual = ctx.board.processor
    return (f"on {row.processor}",) if row.result.cost is not None and usual not in (None, row.processor) else ()


def ratio_cell(row: Entry, ctx: Context) -> TableCell:
    """Step-time ratio, bold only where its interval lies below all others."""
    ratio = step_ratio(row)
    if ratio is None:
        return TableCell(NONE, None, sub="not measured")
    if row.method == PLAIN:
        return TableCell(f"1 {TIMES}", 1.0, sub="reference")
    flags = []
    over = row.result.cost or {}
    if over["mode"] == "quick":
        flags.append("quick")
    if not over["converged"]:
        flags.append("not converged")
    if over["noise_flag"]:
        flags.append("noisy machine")
    if over["contended"]:
        flags.append("contended")
    flags += _on(row, ctx)
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
        tags=tuple(flags),
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
    own, plain = _over(row, field), _over(row, f"plain_{field}")
    return f"{times(own / plain)} plain" if own is not None and plain else ""


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


def based(costs: Totals) -> str:
    """What its hours go by: a busy machine stretches those of the clock, which no measured step tells."""
    return "wall clock" if costs.basis == "measured" else costs.basis


def recipe_cell(row: Entry, ctx: Context) -> TableCell:
    """Cost of the whole recipe."""
    costs = row.result.totals
    sub = f"{times(row.recipe_ratio)} plain" if row.recipe_ratio and row.method != PLAIN else ""
    return TableCell(
        significant(costs.recipe_h),
        costs.recipe_h,
        sub=sub,
        tags=(based(costs), *_on(row, ctx)),
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
        tags=(based(costs), *_on(row, ctx)),
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
