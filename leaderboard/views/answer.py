"""What a suite says of the board's question, first: counts in a sentence, and the methods that answer it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.leaderboard.draw.numbers import NONE, between, digits_for, fixed, signed, significant
from kdbench.leaderboard.model.entries import NOT_LEARNED, Entry, lost_words
from kdbench.leaderboard.model.suites import SuiteBoard, SuiteRow
from kdbench.leaderboard.tables.cells import TableCell, all_behind, all_measured_in, runs_behind
from kdbench.leaderboard.tables.costs import ratio_text
from kdbench.leaderboard.tables.table import Head, Line, Table
from kdbench.results import chance
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import Missing, PooledDelta

ROWS = 10


@dataclass(frozen=True)
class Answer:
    """The sentences, and the table of the first methods by their difference to plain trained as long.

    Attributes:
        failed: methods with seeds that failed, which are in no row: method, what became of its seeds, and the page of
            the runs.
    """

    sentences: tuple[str, ...]
    table: Table | None
    failed: tuple[tuple[str, str, str], ...] = ()


def answer_of(suite: SuiteBoard, key: str) -> Answer:
    """Which methods are worth their cost in a suite."""
    if suite.ruleset != AS_PUBLISHED:
        return Answer((searched_words(suite.ruleset),), None, _failed(suite))
    told = suite.told.get("matched", {})
    by_word: dict[str, list[str]] = {word: [] for word in ("better", "worse", "not separated")}
    for method, word in told.items():
        by_word[word].append(method)
    said = _counted(by_word) if told else "No method has been measured against plain trained for as long yet."
    rows = [row for row in suite.rows if row.matched is not None and row.method != PLAIN]
    rows.sort(key=lambda row: -row.matched.mean if row.matched is not None else 0.0)
    return Answer((said,), _table(suite, rows[:ROWS], len(rows), key) if rows else None, _failed(suite))


def searched_words(ruleset: str) -> str:
    """What rows of a ruleset with searched values have in common."""
    return (
        f"Learning rate and hyper-parameters are those that a search of equal size found for each method ({ruleset}), "
        "on training rows that no student of the search saw; compared among such rows alone, without compute-matched "
        "plain."
    )


def _counted(by_word: dict[str, list[str]]) -> str:
    better, worse, even = (by_word[word] for word in ("better", "worse", "not separated"))
    total = len(better) + len(worse) + len(even)
    one = total == 1
    return (
        f"Of {total} method{'' if one else 's'} set against plain trained for as long as the method’s recipe takes, "
        f"{len(better)} beat{'s' * (len(better) == 1)} it, {len(worse)} do{'es' * (len(worse) == 1)} worse, and "
        f"{len(even)} cannot be told from it."
    )


def _failed(suite: SuiteBoard) -> tuple[tuple[str, str, str], ...]:
    """Of seeds at chance, seeds without a score beside others that have one, and cells without any."""
    found = []
    for board in suite.boards:
        where = f" on {board.task.label}" if len(suite.boards) > 1 else ""
        for row in board.apart:
            if row.apart == NOT_LEARNED:
                said = chance.words(len(row.result.at_chance), len(row.result.scores))
            elif failed := {seed: why for seed, why in row.lost.items() if why is Missing.FAILED}:
                said = lost_words(failed)
            else:
                continue
            found.append((row.method, said + where, runs_behind(row.cell)))
        found += [
            (hole.method, "every seed failed" + where, f"runs/{hole.run}.html")
            for hole in board.holes
            if hole.kind is Missing.FAILED
        ]
    return tuple(sorted(found))


def _table(suite: SuiteBoard, rows: list[SuiteRow], total: int, key: str) -> Table:
    scores = [v for board in suite.boards for row in board.ranked for v in row.result.scores.values()]
    digits = digits_for(suite.unit, scores)
    heads = (
        Head("method", "Method", "", "Answer", "Name of the card, or of its variant.", True, False),
        _number("matched", "Δ to plain as long", suite.points, "To plain trained for as long as its recipe takes."),
        _number("delta", f"Δ to {suite.baseline}", suite.points, "Paired with the baseline, seed by seed."),
        _number("recipe", "Recipe cost", "× plain", "All stages that the method needs, as a multiple of plain’s."),
        Head("words", "In words", "", "Answer", "The two differences together.", True, False),
    )
    lines = tuple(Line(row.method, _cells(suite, row, digits)) for row in rows)
    shown = f"the first {len(rows)} of {total} methods" if len(rows) < total else "methods"
    caption = f"Worth their cost on {suite.suite}: {shown} by the difference to plain trained for as long."
    return Table(f"{key}-answer", caption, heads, lines)


def _number(key: str, head: str, unit: str, about: str) -> Head:
    return Head(key, head, unit, "Answer", f"{about} 95 % interval below.", True, True)


def _cells(suite: SuiteBoard, row: SuiteRow, digits: int) -> dict[str, TableCell]:
    is_baseline = all(board.task.baseline == row.method for board in suite.boards)
    return {
        "method": TableCell(row.method, row.method, tags=("baseline",) if is_baseline else ()),
        "matched": difference(row.matched, suite.told["matched"].get(row.method, ""), digits, row.rows),
        "delta": TableCell("0", 0.0, sub="reference") if is_baseline else difference(
            row.delta, suite.told["baseline"].get(row.method, ""), digits, row.rows
        ),
        "recipe": ratio_text(row.recipe_ratio, row.method, row.elsewhere, all_measured_in(row.rows)),
        "words": TableCell(_words(suite, row, digits, is_baseline=is_baseline)),
    }  # fmt: skip


def difference(delta: PooledDelta | None, told: str, digits: int, rows: Sequence[Entry]) -> TableCell:
    """A difference over tasks with its interval; ``rows``: the method's on these tasks."""
    if delta is None:
        return TableCell(NONE, None, sub="not on every task")
    if delta.lo is None or delta.hi is None:
        return TableCell(signed(delta.mean, digits), delta.mean, sub="no interval", behind=all_behind(rows))
    return TableCell(
        signed(delta.mean, digits), delta.mean, sub=between(delta.lo, delta.hi, digits, sign=True), verdict=told,
        lo=delta.lo, hi=delta.hi, behind=all_behind(rows),
    )  # fmt: skip


def _words(suite: SuiteBoard, row: SuiteRow, digits: int, *, is_baseline: bool) -> str:
    """E.g. ``+3.7 over kd at 2.8 times its cost; could be the best``."""
    base = next((other for other in suite.rows if other.method == suite.baseline), None)
    said = []
    if not is_baseline and row.delta is not None:
        told = suite.told["baseline"].get(row.method)
        if told in ("better", "worse"):
            by = signed(row.delta.mean, digits) if told == "better" else fixed(abs(row.delta.mean), digits)
            said.append(f"{by} {'over' if told == 'better' else 'under'} {suite.baseline}")
        else:
            said.append(f"not told from {suite.baseline}")
        if base is not None and base.recipe_ratio is not None and row.recipe_ratio is not None:
            said[-1] += f" at {significant(row.recipe_ratio[0] / base.recipe_ratio[0])} times its cost"
    told = suite.told["matched"].get(row.method)
    if told == "better" and is_baseline:
        said.append("better than plain trained as long")
    elif told == "worse":
        said.append("plain trained as long is better")
    elif told == "not separated":
        said.append("not told from plain trained as long")
    if row.best:
        said.append({"best": "the best", "≈ best": "near the best"}.get(row.best, "could be the best"))
    return "; ".join(said)
