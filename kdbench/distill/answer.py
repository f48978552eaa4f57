"""The answer in words: what each method gained over plain, what it cost, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from kdbench.index.store import Store
from kdbench.results.book import Book, Result
from kdbench.specs import registry
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import PairedDelta

POWER = 0.8
MOST_SEEDS = 200
"""A gain that as many seeds would not show is no gain."""
TASK_WEIGHTS = ("ce_weight", "kd_weight", "kl_weight")
"""Weights that are not of a method's own terms."""


@dataclass(frozen=True)
class Answer:
    """A method's part of the answer.

    Attributes:
        over_plain, over_matched: seed-paired differences, positive where the method is better; to plain, and to plain
            trained for as long as the recipe takes.
        recipe: recipe cost over plain's.
        words: the verdict.
    """

    method: str
    result: Result
    over_plain: PairedDelta | None
    over_matched: PairedDelta | None
    recipe: float | None
    words: str


def answers(store: Store, task: str, methods: Sequence[str], device_classes: Iterable[str]) -> list[Answer]:
    """Of the methods that have results, the best first; plain among them."""
    classes = set(device_classes)
    book = Book.of(store, {"task": task})
    cells = [
        cell
        for cell in book.cells
        if cell["current"] and not cell["custom"] and not cell["smoke"] and cell["method"] in methods
        and cell["ruleset"] == AS_PUBLISHED
        and cell["device_class"] in classes
    ]  # fmt: skip
    results = book.results(cells)
    best = results[0].cell["higher_is_better"] if results else True
    results.sort(key=lambda result: -result.stat.mean if best else result.stat.mean)
    return [_answer(result) for result in results]


def _answer(result: Result) -> Answer:
    method = str(result.cell["method"])
    over_plain = result.deltas.get(PLAIN)
    return Answer(
        method, result, over_plain, result.to_matched, result.totals.ratio("recipe"), _words(method, result, over_plain)
    )


def _words(method: str, result: Result, over_plain: PairedDelta | None) -> str:
    if method == PLAIN:
        return "what the others are measured against"
    n, failed = len(result.scores), len(result.at_chance)
    if failed:
        return f"at chance on {failed} of {n} seeds{_drowned(method)}"
    if over_plain is None:
        return result.unpaired.get(PLAIN) or "not compared with plain"
    if over_plain.separated and over_plain.mean < 0:
        return "worse than plain"
    said = "better than plain" if over_plain.separated else f"not separated from plain{_more_seeds(over_plain)}"
    longer = result.to_matched
    if over_plain.separated and longer is not None:
        if longer.separated and longer.mean > 0:
            return f"{said}, also trained as long"
        if longer.separated:
            return f"{said}, but plain trained as long is better still"
        return f"{said}; not separated from plain trained as long{_more_seeds(longer)}"
    return said


def _drowned(method: str) -> str:
    """What to try with a method whose seeds learnt nothing: a weight to lower where one stands out, a search."""
    card = registry.method(method).card
    own = {
        name: float(hp.default)
        for name, hp in card.hyper_parameters.items()
        if name.endswith("_weight") and name not in TASK_WEIGHTS and isinstance(hp.default, int | float)
    }
    heaviest = max(own, key=lambda name: own[name], default=None)
    if heaviest is None or (value := own[heaviest]) <= 1:
        return "; try kdbench tune"
    return (
        f": its {heaviest} of {value:g} drowns the task's loss; try method.{heaviest}={value / 10:g}, or kdbench tune"
    )


def _more_seeds(delta: PairedDelta) -> str:
    """How many seeds would show a gain of the size seen."""
    if delta.sd is None:
        return ": more than one seed would tell"
    needed = seeds_needed(delta.mean, delta.sd)
    if needed is None or needed <= delta.n:
        return ""
    return f": about {needed} seeds would show a gain of this size"


def seeds_needed(mean: float, sd: float, power: float = POWER, confidence: float = 0.95) -> int | None:
    """Pairs at which a t-test finds a mean difference of this size with the given power; None beyond
    :data:`MOST_SEEDS`.

    By the noncentral t distribution; the size and the spread are those seen, so the number is a rough one.
    """
    if sd == 0:
        return 2 if mean else None
    for n in range(2, MOST_SEEDS + 1):
        limit = stats.t.ppf((1 + confidence) / 2, n - 1)
        if stats.nct.sf(limit, n - 1, abs(mean) / sd * n**0.5) >= power:
            return n
    return None


def conclusion(found: Sequence[Answer], unit: str) -> list[str]:
    """The teacher's own score, and which method to take."""
    plain = next((one for one in found if one.method == PLAIN), None)
    if plain is None:
        return ["plain has no result: nothing can be said"]
    points = "points" if unit == "%" else unit
    teacher = next((one.result.teacher for one in found if one.result.teacher is not None), None)
    lines = []
    if teacher is not None:
        turn = 1 if plain.result.cell["higher_is_better"] else -1
        gap = turn * (teacher - plain.result.stat.mean)
        rest = f"{gap:.2f} {points} to gain" if gap > 0 else "no better than plain, so there is little to learn from it"
        lines.append(f"the teacher scores {teacher:.2f}, plain {plain.result.stat.mean:.2f}: {rest}")
    others = [one for one in found if one.method != PLAIN and not one.result.at_chance]
    earned = [one for one in others if _least(one.over_matched) > 0]
    gained = [one for one in others if _least(one.over_plain) > 0]
    if earned:
        best = max(earned, key=lambda one: _least(one.over_matched))
        gain = _gain(best.over_matched, points)
        lines.append(f"worth its cost here: {best.method}, {gain} over plain trained as long")
    elif gained:
        best = max(gained, key=lambda one: _least(one.over_plain))
        longer = "compared with" if best.over_matched is None else "told from"
        gain = _gain(best.over_plain, points)
        lines.append(f"best gain here: {best.method}, {gain} over plain; not {longer} plain trained as long")
    else:
        lines.append("no method tried is told from plain here")
    return lines


def _least(delta: PairedDelta | None) -> float:
    """The lower end of a difference's interval, 0 without one."""
    return 0.0 if delta is None or delta.lo is None else delta.lo


def _gain(delta: PairedDelta | None, points: str) -> str:
    assert delta is not None
    interval = "" if delta.lo is None else f" ({delta.lo:+.2f} to {delta.hi:+.2f})"
    return f"{delta.mean:+.2f}{interval} {points}"
