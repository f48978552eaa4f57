"""``kdbench compare A B``: two configurations, seed by seed, quality and cost, with a verdict in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kdbench.base.errors import UserError
from kdbench.records import settings
from kdbench.records.items import Each
from kdbench.results.cells import ResultRow
from kdbench.results.pairing import obstacle, paired
from kdbench.specs import registry
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import PairedDelta, paired_delta, verdict
from kdbench.stats.mcnemar import mcnemar

RUN_ID = re.compile(r"[0-9a-f]{6,32}")
"""A run id, or enough of it."""


@dataclass(frozen=True)
class RowByRow:
    """The networks of one seed on the test rows, each right or wrong.

    Attributes:
        rows: number of them.
        first_alone, second_alone: rows on which the one is right and the other is not.
        p: of McNemar's exact test; it speaks of these two networks, a method's seeds differ as well.
    """

    seed: int
    rows: int
    first_alone: int
    second_alone: int
    p: float


@dataclass(frozen=True)
class RowMeans:
    """The same where the metric is a number a row: McNemar's test has nothing to count.

    Attributes:
        delta: paired over rows, turned so that positive is better; its interval speaks of these two networks on other
            rows like these.
    """

    seed: int
    delta: PairedDelta


@dataclass(frozen=True)
class Pairing:
    """Two configurations on one task and device class.

    Attributes:
        delta: second minus first, turned so that positive is better; None without runs that may be compared.
        cost: recipe cost of the second over that of the first; None unless both were measured.
        step: the same of their step times.
        words: what follows from all.
        row_by_row: of each common seed whose two runs kept on which test rows they are right.
        row_means: of each whose two runs kept a number a test row.
    """

    first: ResultRow
    second: ResultRow
    delta: PairedDelta | None
    cost: float | None
    step: float | None
    words: str
    row_by_row: tuple[RowByRow, ...] = ()
    row_means: tuple[RowMeans, ...] = ()


def pairings(
    rows: Sequence[ResultRow], first: str, second: str, kept: Callable[[str], Each | None] = lambda run: None
) -> list[Pairing]:
    """Two sides of a comparison on every task and device class that both have results on.

    Args:
        rows: all there are, see :func:`kdbench.results.cells.rows`.
        first, second: a method; a method and overrides, ``at method.attention_weight=10``; or a run id, which stands
            for all seeds of its configuration.
        kept: run id to what the metric is of each test row, None where that was not kept.

    Raises:
        UserError: no such method, override or run, or the same results on both sides.
    """
    sides = [_side(rows, text) for text in (first, second)]
    pairs = [_pairing(a, b, kept) for a in sides[0] for b in sides[1] if _place(a) == _place(b)]
    if pairs and all(pair.first.run_ids == pair.second.run_ids for pair in pairs):
        raise UserError(f"{first} and {second} are the same runs; name another method, overrides or a run id")
    return pairs


def _place(row: ResultRow) -> tuple[str, int, str, str]:
    return row.task, row.version, row.device_class, row.ruleset


def side(text: str) -> tuple[str, list[str]]:
    """A method and overrides, or a run id and none, as a user names a side.

    Raises:
        UserError: no such method, or no such form.
    """
    try:
        name, *words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{text!r}: not of the form 'METHOD KEY=VALUE ...' or a run id") from error
    if not RUN_ID.fullmatch(name) or name in registry.methods():
        return registry.method(name).name, words
    if words:
        raise UserError(f"{text!r}: a run id stands for its configuration; leave the overrides out")
    return name, []


def _side(found: Sequence[ResultRow], text: str) -> list[ResultRow]:
    """The rows that one side names.

    Raises:
        UserError: there is none.
    """
    name, words = side(text)
    if name not in registry.methods() and RUN_ID.fullmatch(name):
        return [_of_run(found, name)]
    own = [row for row in found if row.method == name and row.score is not None and "smoke" not in row.marks]
    there = ", ".join(sorted({row.label for row in own}))
    if not words:
        plain = [row for row in own if row.current and "custom" not in row.marks]
        if own and not plain:
            raise UserError(f"no results of {name} without overrides; there are {there}")
        return plain
    chosen, refused = [], None
    for row in own:
        try:
            asked = settings.wanted(name, row.task, _whole(name, words))
        except UserError as error:  # a key of one task need not be one of the next
            refused = error
            continue
        if row.overrides == asked and row.current:
            chosen.append(row)
    if not chosen:
        if refused is not None:
            raise refused
        raise UserError(f"no results of {text!r}; there are {there or 'none of this method'}")
    return chosen


def _whole(method: str, words: Sequence[str]) -> list[str]:
    """Overrides in which a hyper-parameter may stand without its ``method.``."""
    known = registry.method(method).card.hyper_parameters
    return [f"{settings.METHOD}.{word}" if word.partition("=")[0] in known else word for word in words]


def _of_run(found: Sequence[ResultRow], start: str) -> ResultRow:
    """The row that holds a run."""
    held = {run: row for row in found if row.score is not None for run in row.run_ids if run.startswith(start)}
    if len(held) != 1:
        what = f"{len(held)} runs that count begin" if held else "no run that counts begins"
        raise UserError(f"{what} with {start}; `kdbench results --json` lists the run ids")
    return next(iter(held.values()))


def _row_by_row(a: ResultRow, b: ResultRow, kept: Callable[[str], Each | None]) -> Iterator[RowByRow | RowMeans]:
    """Seed by seed, of runs scored on the same rows."""
    runs = [dict(zip(row.cell["seeds"], row.cell["run_ids"], strict=True)) for row in (a, b)]
    for seed in sorted(runs[0].keys() & runs[1].keys()):
        one, other = (kept(run[seed]) for run in runs)
        if one is None or other is None or one.dtype != other.dtype or len(one) != len(other):
            continue
        if one.dtype == bool:
            first, second = one.astype(bool), other.astype(bool)
            alone = int((first & ~second).sum()), int((second & ~first).sum())
            yield RowByRow(seed, len(one), *alone, mcnemar(*alone))
        else:
            ours, theirs = (dict(enumerate(values.tolist())) for values in (other, one))
            yield RowMeans(seed, paired_delta(ours, theirs, "max" if a.cell["higher_is_better"] else "min"))


def _pairing(a: ResultRow, b: ResultRow, kept: Callable[[str], Each | None]) -> Pairing:
    delta, where = None, f"{a.task}, {a.device_class}"
    if a.ruleset == b.ruleset != AS_PUBLISHED:
        where += f", {a.ruleset}"
    apart = obstacle(b.cell, [a.cell])
    if apart:
        quality = f"no difference is taken between {a.label} and {b.label} on {where}: {apart}"
    else:
        delta = paired(b.scores, a.scores, a.cell)
        assert delta is not None  # without a common seed there is an obstacle
        quality = verdict(b.label, a.label, where, delta, a.unit)
    cost = _ratio(a, b)
    if cost is None:
        said = _processors(a, b) or "their costs were not both measured"
    else:
        dear, cheap, times = (b, a, cost) if cost >= 1 else (a, b, 1 / cost)
        said = f"the recipe of {dear.label} costs {times:.2g} times that of {cheap.label}"
    found = () if apart else tuple(_row_by_row(a, b, kept))
    rights = tuple(one for one in found if isinstance(one, RowByRow))
    means = tuple(one for one in found if isinstance(one, RowMeans))
    return Pairing(a, b, delta, cost, _steps(a, b), f"{quality}; {said}", rights, means)


def _processors(a: ResultRow, b: ResultRow) -> str:
    """Why two measured costs are not set against one another, "" where nothing forbids it."""
    over_plain = PLAIN in (a.method, b.method) and a.cell["student_protocol"] == b.cell["student_protocol"]
    if over_plain or a.processor == b.processor:
        return ""
    return f"their costs were measured on different processors ({a.processor}, {b.processor})"


def _ratio(a: ResultRow, b: ResultRow) -> float | None:
    """Ratio of the two recipe costs: each over plain of its own measurement, or in hours where their plain differs."""
    if a.totals is None or b.totals is None or not a.totals.plain_h or not b.totals.plain_h:
        return None
    if _processors(a, b):
        return None
    if a.cell["student_protocol"] != b.cell["student_protocol"]:
        return b.totals.recipe_h / a.totals.recipe_h
    ratios = [1.0 if row.method == PLAIN else row.totals.ratio("recipe") for row in (a, b) if row.totals]
    return None if None in ratios else ratios[1] / ratios[0]  # type: ignore[operator]


def _steps(a: ResultRow, b: ResultRow) -> float | None:
    """Ratio of the two step times, each over plain in its own measurement; None of different processors."""
    if _processors(a, b):
        return None
    ratios = [1.0 if row.method == PLAIN else (row.cost or {}).get("step_ratio") for row in (a, b)]
    return None if None in ratios else ratios[1] / ratios[0]  # type: ignore[operator]
