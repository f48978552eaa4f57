"""What the published runs say of each method, in one small table that is part of the package.

``python -m kdbench.distill.evidence`` writes ``evidence.csv`` anew from the published records.
"""

from __future__ import annotations

import csv
import functools
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean

from kdbench.index.store import Store
from kdbench.records.provenance import PUBLISHED
from kdbench.results.book import Book, Result
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats.layout import sign

TABLE = Path(__file__).with_name("evidence.csv")
LEAST_GAP = 1e-9
"""A teacher no better than plain says nothing of how much of the way to it a method went."""


@dataclass(frozen=True)
class Evidence:
    """A method on the ranked tasks of a kind, as published.

    Attributes:
        tasks, runs: how many it has.
        gain: (method - plain) / (teacher - plain), mean over tasks: 1 closes the whole gap to the teacher.
        costed: how many of the tasks have costs, and plain trained for as long as the method's recipe takes.
        over_matched: the same as ``gain`` against that plain, mean over these tasks; None without one.
        recipe: recipe cost over plain's, mean over these tasks; None without one.
        worth: mean over all tasks of the share beyond plain trained for as long, beyond plain where there is no such.
        failed: share of seeds that learnt nothing.
    """

    kind: str
    method: str
    tasks: int
    runs: int
    gain: float
    costed: int
    over_matched: float | None
    recipe: float | None
    worth: float
    failed: float

    @property
    def words(self) -> str:
        """For a plan's line."""
        on = f"on {self.tasks} {self.kind} task{'s' * (self.tasks > 1)} ({self.runs} runs)"
        share = f"{self.gain:+.0%} of the gap to the teacher {on}"
        if self.over_matched is None or self.recipe is None:
            return f"{share}, cost not published"
        matched = f"{self.over_matched:+.0%} over plain as long{f' on {self.costed}' * (self.costed < self.tasks)}"
        return f"{share}, {matched}, {self.recipe:.1f} times plain's cost"


@functools.cache
def evidence() -> dict[tuple[str, str], Evidence]:
    """By kind and method."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [{f.name: row[f.name] for f in fields(Evidence)} for row in csv.DictReader(file)]
    made = [
        Evidence(
            row["kind"], row["method"], int(row["tasks"]), int(row["runs"]), float(row["gain"]), int(row["costed"]),
            _number(row["over_matched"]), _number(row["recipe"]), float(row["worth"]), float(row["failed"]),
        )
        for row in rows
    ]  # fmt: skip
    return {(one.kind, one.method): one for one in made}


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def computed() -> list[Evidence]:
    """From the published records, by kind and method."""
    with Store.memory(PUBLISHED) as store:
        book = Book.of(store, {})
        counted = [
            cell
            for cell in book.cells
            if cell["current"]
            and cell["ranked"]
            and cell["ruleset"] == AS_PUBLISHED
            and not (cell["custom"] or cell["smoke"] or cell["own_protocol"])
        ]
        found: dict[tuple[str, str], list[Result]] = defaultdict(list)
        for result in book.results(counted):
            found[result.record.task.kind, result.cell["method"]].append(result)
    made = [_of(kind, method, results) for (kind, method), results in sorted(found.items()) if method != PLAIN]
    return [one for one in made if one is not None]


def _of(kind: str, method: str, results: list[Result]) -> Evidence | None:
    gains, matched, worth, counted = [], [], [], []
    for result in results:
        plain, ratio = result.deltas.get(PLAIN), result.totals.ratio("recipe")
        if plain is None or result.teacher is None:
            continue
        turn = sign("max" if result.cell["higher_is_better"] else "min")
        gap = turn * (result.teacher - result.stat.mean) + plain.mean
        if gap > LEAST_GAP:
            gains.append(plain.mean / gap)
            counted.append(result)
            if result.to_matched is not None and ratio is not None:
                matched.append((result.to_matched.mean / gap, ratio))
                worth.append(matched[-1][0])
            else:
                worth.append(gains[-1])
    if not counted:
        return None
    seeds = sum(len(result.scores) for result in counted)
    failed = sum(len(result.at_chance) for result in counted) / seeds
    over, recipe = (round(mean(values), 3) for values in zip(*matched, strict=True)) if matched else (None, None)
    gain, worthy, failed = (round(value, 3) for value in (mean(gains), mean(worth), failed))
    return Evidence(kind, method, len(counted), seeds, gain, len(matched), over, recipe, worthy, failed)


def write() -> None:
    """``evidence.csv`` from the published records."""
    found = computed()
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Evidence)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)


if __name__ == "__main__":
    write()
