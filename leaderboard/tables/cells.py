"""Cells of a task's table: what a row says in each column, as text, sort value, notes and marks; costs are beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from kdbench import kinds
from kdbench.leaderboard.draw.charts import shown, strip
from kdbench.leaderboard.draw.numbers import (
    NONE,
    between,
    digits_for,
    fixed,
    plus_minus,
    range_of,
    signed,
    significant,
)
from kdbench.leaderboard.model.entries import Entry
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.results import chance, taught
from kdbench.results.pairing import Cell
from kdbench.specs.registry import PLAIN
from kdbench.stats import CellStat, PairedDelta, Told, clipped, summarise

LEVELS = ("self-reported", "validated", "checkpoint re-evaluated", "re-run", "re-run on another device class")
LEVEL_MARKS = ("○", "◔", "◑", "◕", "●")


@dataclass(frozen=True)
class TableCell:
    """A cell: ``text`` large, ``sub`` small beneath, ``sort`` what it is ordered by and what downloads hold.

    ``lo`` and ``hi`` are the ends of its interval, which downloads hold too. ``behind`` is the page of what it was made
    from, from the site's root.

    ``verdict`` is ``better``, ``worse`` or ``not separated``; the template turns it into a sign and a word for readers.
    """

    text: str
    sort: float | str | None = None
    sub: str = ""
    title: str = ""
    mark: str = ""
    tags: tuple[str, ...] = ()
    art: Markup | None = None
    links: tuple[tuple[str, str], ...] = ()
    verdict: str = ""
    lo: float | None = None
    hi: float | None = None
    behind: str = ""


@dataclass(frozen=True)
class Context:
    """What cells of one table share: the board, where dots of seeds lie, and whether no row of it was tuned."""

    board: TaskBoard
    digits: int
    lo: float
    hi: float
    untuned: bool = False


def context(board: TaskBoard) -> Context:
    """What the cells of a task's table share."""
    values = [value for row in board.comparable for value in row.result.scores.values()]
    digits = digits_for(board.task.unit, values)
    rows = [list(row.result.scores.values()) for row in board.comparable]
    ends = shown([(fmean(scores), min(scores), max(scores)) for scores in rows])
    return Context(board, digits, *ends, all_untuned(board))


def measured_in(row: Entry) -> str:
    """The page of the run that a row's costs are quoted from."""
    return f"runs/{row.result.record.run_id}.html"


def anchor_of(cell: Cell) -> str:
    """Where a method's page lists the runs of a cell."""
    return f"cell-{cell['run_ids'][0][:12]}"


def runs_behind(cell: Cell) -> str:
    """The lines of a method's page with the runs of a cell and, seed by seed, those that it is paired with."""
    return f"methods/{cell['method']}.html#{anchor_of(cell)}"


def all_behind(rows: Sequence[Entry]) -> str:
    """The same of a method's rows on several tasks: all its lines."""
    return runs_behind(rows[0].cell) if len(rows) == 1 else f"methods/{rows[0].method}.html#seeds"


def all_measured_in(rows: Sequence[Entry]) -> str:
    """As :func:`measured_in`, of a method's rows on several tasks: its table of results, whose costs lead on."""
    return measured_in(rows[0]) if len(rows) == 1 else f"methods/{rows[0].method}.html#results"


def metric_word(metric: str) -> str:
    """A metric as people write it."""
    known = kinds.metrics().get(metric)
    return (known.word if known is not None else "") or metric


def places(label: str, mark: str = "") -> TableCell:
    """The places of a rank's label, the first and the last as its ends."""
    if not label:
        return TableCell(NONE, None)
    first, _, last = label.partition("-")
    return TableCell(range_of(label), float(first), mark=mark, lo=float(first), hi=float(last or first))


def rank_cell(row: Entry, ctx: Context) -> TableCell:
    """Ranks the row could hold."""
    return places(ctx.board.ranks.get(row.method, ""))


def untuned(row: Entry) -> bool:
    """Whether its hyper-parameters are the card's, for nobody published or searched any for the task."""
    return bool(row.params) and row.cell["params_source"] == "default"


def all_untuned(board: TaskBoard) -> bool:
    """Whether that holds of every row that is ranked or lacks only seeds: then it is said once, not in every row."""
    return bool(board.comparable) and all(map(untuned, board.comparable))


def method_cell(row: Entry, ctx: Context) -> TableCell:
    """Name with what the reader must know of it."""
    tags = []
    if row.is_baseline:
        tags.append("baseline")
    elif row.method == PLAIN and not row.custom:
        tags.append("reference")
    if untuned(row) and not ctx.untuned:
        tags.append("not tuned here")
    if row.selection != "last":
        tags.append("epoch chosen on validation rows")
    return TableCell(row.method, row.method, sub=row.caution, tags=tuple(tags))


def pair_cell(row: Entry, ctx: Context) -> TableCell:
    """Student and teacher."""
    return TableCell(f"{row.cell['student']} ← {row.cell['teacher'] or 'no teacher'}", row.cell["student"])


def with_half(stat: CellStat, digits: int) -> str:
    """Mean and half of its interval, e.g. ``87.30 ± 3.03``; the mean alone where there is no interval."""
    return plus_minus(stat.mean, stat.lo, stat.hi, digits)


def score_cell(row: Entry, ctx: Context) -> TableCell:
    """Score, interval and a dot for each seed."""
    stat, best = row.result.stat, ctx.board.best
    dots = list(row.result.scores.values())
    return TableCell(
        with_half(stat, ctx.digits),
        stat.mean,
        sub=f"n = {stat.n}" if not stat.note else ("1 seed" if stat.n == 1 else f"n = {stat.n}, {stat.note}"),
        title="seeds " + ", ".join(f"{seed}: {fixed(value, ctx.digits)}" for seed, value in row.result.scores.items()),
        mark="" if row.apart or best is None else best.word(row.method),
        art=strip(dots, ctx.lo, ctx.hi, stat.mean),
        lo=stat.lo,
        hi=stat.hi,
        behind=runs_behind(row.cell),
        tags=tuple(filter(None, [chance.words(len(row.result.at_chance), len(dots))])),
    )


def second_score_cell(metric: str) -> Callable[[Entry, Context], TableCell]:
    """Cells of a metric that ranks the task a second time: mean and interval."""

    def make(row: Entry, ctx: Context) -> TableCell:
        stat = ctx.board.seconds[metric].stats.get(row.method)
        if stat is None or row.apart:
            return TableCell(NONE, None)
        seeds = ", ".join(f"{seed}: {fixed(value, ctx.digits)}" for seed, value in row.also[metric].items())
        return TableCell(
            with_half(stat, ctx.digits), stat.mean, sub=f"n = {stat.n}", title=f"seeds {seeds}", lo=stat.lo, hi=stat.hi,
            behind=runs_behind(row.cell),
        )  # fmt: skip

    return make


def offered_cell(metric: str) -> Callable[[Entry, Context], TableCell]:
    """Cells of a metric that is shown and ranks nothing: its mean."""

    def make(row: Entry, ctx: Context) -> TableCell:
        found = row.also.get(metric, {})
        if not found:
            return TableCell(NONE, None)
        mean = fmean(found.values())
        return TableCell(fixed(mean, ctx.digits), mean, sub=f"n = {len(found)}", behind=runs_behind(row.cell))

    return make


def external_cell(name: str) -> Callable[[Entry, Context], TableCell]:
    """Cells of an external test set: mean and interval over the seeds that were scored on it."""

    def make(row: Entry, ctx: Context) -> TableCell:
        found = row.external.get(name, {})
        if not found:
            return TableCell(NONE, None)
        stat = clipped(summarise(dict(found)), *row.task.bounds)
        seeds = ", ".join(f"{seed}: {fixed(value, ctx.digits)}" for seed, value in found.items())
        return TableCell(
            with_half(stat, ctx.digits), stat.mean, sub=f"n = {stat.n}", title=f"seeds {seeds}",
            behind=runs_behind(row.cell),
        )  # fmt: skip

    return make


def second_rank_cell(metric: str) -> Callable[[Entry, Context], TableCell]:
    """Cells of the ranks that the row could hold by such a metric."""

    def make(row: Entry, ctx: Context) -> TableCell:
        return places("" if row.apart else ctx.board.seconds[metric].ranks.get(row.method, ""))

    return make


def _delta(
    row: Entry, delta: PairedDelta | None, ctx: Context, told: Told | None, reference: bool, unpaired: str = ""
) -> TableCell:
    if reference:
        return TableCell("0", 0.0, sub="reference")
    if delta is None:
        return TableCell(NONE, None, sub=unpaired or "no common seed")
    if delta.lo is None or delta.hi is None:
        return TableCell(signed(delta.mean, ctx.digits), delta.mean, sub=delta.note, behind=runs_behind(row.cell))
    pairing = "" if delta.pairing_helped is not False else "; pairing by seed brought nothing"
    return TableCell(
        signed(delta.mean, ctx.digits),
        delta.mean,
        sub=between(delta.lo, delta.hi, ctx.digits, sign=True),
        title=f"{delta.n} pairs{pairing}",
        verdict=told or "",
        lo=delta.lo,
        hi=delta.hi,
        behind=runs_behind(row.cell),
    )


def _told(row: Entry, ctx: Context, reference: str) -> Told | None:
    """What a row's difference is taken for; one that is no part of the family has its interval alone."""
    return None if row.custom else ctx.board.told[reference].get(row.method)


def vs_baseline_cell(row: Entry, ctx: Context) -> TableCell:
    """Paired difference to the baseline."""
    told = _told(row, ctx, "baseline")
    return _delta(row, row.vs_baseline, ctx, told, row.is_baseline, row.result.unpaired.get(row.task.baseline, ""))


def vs_plain_cell(row: Entry, ctx: Context) -> TableCell:
    """Paired difference to plain."""
    reference = row.method == PLAIN and not row.custom
    return _delta(row, row.vs_plain, ctx, _told(row, ctx, "plain"), reference, row.result.unpaired.get(PLAIN, ""))


def vs_matched_cell(row: Entry, ctx: Context) -> TableCell:
    """Paired difference to plain of equal cost."""
    if row.matched is None:
        return TableCell(NONE, None)
    told = _told(row, ctx, "matched")
    why = row.result.unpaired.get(f"{PLAIN}@{row.method}", "")
    cell = _delta(row, row.result.to_matched, ctx, told, False, why)
    reached = f"plain@{row.method} reaches {with_half(row.matched, ctx.digits)}"
    return replace(cell, title=reached, links=_links(row.matched_runs))


def gap_cell(row: Entry, ctx: Context) -> TableCell:
    """Gap recovered, or the guard that holds it back."""
    if row.gap is None:
        return TableCell(NONE, None)
    if row.gap.value is None or row.gap.lo is None or row.gap.hi is None:
        return TableCell(NONE, None, sub=row.gap.reason)
    return TableCell(
        row.gap.text,
        100 * row.gap.value,
        sub=between(100 * row.gap.lo, 100 * row.gap.hi, 0),
        title=f"{100 * row.gap.value:.1f} %",
        lo=100 * row.gap.lo,
        hi=100 * row.gap.hi,
        behind=runs_behind(row.cell),
    )


def teacher_cell(row: Entry, ctx: Context) -> TableCell:
    """The teacher's score; of one that the method trained on, before and after, and what that took."""
    before = row.result.teacher
    if before is None or not row.cell["teacher"]:
        return TableCell(NONE, None)
    changed = taught.before_and_after(row.result.record)
    if not changed:
        return TableCell(fixed(before, ctx.digits), before, behind=measured_in(row))
    text = ", ".join(f"{fixed(old, ctx.digits)} → {fixed(new, ctx.digits)}" for _, old, new in changed)
    hours = sum(line.hours for line in row.result.stages if line.ledger == "teacher_train")
    sub = f"trained on by the method: {significant(hours)} device-h"
    return TableCell(text, changed[0][2], sub=sub, behind=measured_in(row))


def device_cell(row: Entry, ctx: Context) -> TableCell:
    """Device class."""
    return TableCell(row.device, row.device)


def verified_cell(row: Entry, ctx: Context) -> TableCell:
    """Level of verification, as icon and words."""
    if row.cell["verification_failed"]:
        return TableCell("✕ failed check", -1.0, tags=("failed",))
    return TableCell(f"{LEVEL_MARKS[row.cell['level']]} {LEVELS[row.cell['level']]}", float(row.cell["level"]))


def runs_cell(row: Entry, ctx: Context) -> TableCell:
    """A link a seed."""
    return TableCell("", None, links=_links(row.result.runs))


def _links(runs: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"seed {seed}", run) for seed, run in runs.items())
