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
        over_matched: the same against plain trained for as long as the method's recipe takes.
        recipe: recipe cost over plain's, mean over tasks.
        failed: share of seeds that learnt nothing.
    """

    kind: str
    method: str
    tasks: int
    runs: int
    gain: float
    over_matched: float
    recipe: float
    failed: float

    @property
    def words(self) -> str:
        """For a plan's line."""
        share = f"{self.gain:+.0%} of the gap to the teacher ({self.over_matched:+.0%} over plain as long)"
        return f"{share}, {self.recipe:.1f} times plain's cost, {self.runs} published runs"


@functools.cache
def evidence() -> dict[tuple[str, str], Evidence]:
    """By kind and method."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [{f.name: row[f.name] for f in fields(Evidence)} for row in csv.DictReader(file)]
    made = [
        Evidence(
            row["kind"], row["method"], int(row["tasks"]), int(row["runs"]), float(row["gain"]),
            float(row["over_matched"]), float(row["recipe"]), float(row["failed"]),
        )
        for row in rows
    ]  # fmt: skip
    return {(one.kind, one.method): one for one in made}


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
    told, counted = [], []
    for result in results:
        plain, ratio = result.deltas.get(PLAIN), result.totals.ratio("recipe")
        if plain is None or result.to_matched is None or ratio is None or result.teacher is None:
            continue
        turn = sign("max" if result.cell["higher_is_better"] else "min")
        gap = turn * (result.teacher - result.stat.mean) + plain.mean
        if gap > LEAST_GAP:
            told.append((plain.mean / gap, result.to_matched.mean / gap, ratio))
            counted.append(result)
    if not told:
        return None
    seeds = sum(len(result.scores) for result in counted)
    failed = sum(len(result.at_chance) for result in counted) / seeds
    gain, over, recipe = (round(mean(values), 3) for values in zip(*told, strict=True))
    return Evidence(kind, method, len(told), seeds, gain, over, recipe, round(failed, 3))


def write() -> None:
    """``evidence.csv`` from the published records."""
    found = computed()
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Evidence)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)


if __name__ == "__main__":
    write()
