"""Published figures beside ours: what a paper or repository claims, what this code gives, and why they may differ."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from kdbench.specs import registry
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import AS_PUBLISHED

if TYPE_CHECKING:  # `show` answers at once: it loads neither the index nor the statistics
    from kdbench.results.cells import ResultRow
    from kdbench.stats import CellStat

METHOD_NAMES = {
    "vanilla": registry.PLAIN,
    "kd+lskd": "lskd",
    "simkd_f2": "simkd",
    "simkd_f4": "simkd-f4",
    "simkd_f8": "simkd-f8",
    "hsakd_star": "hsakd-joint",
}
"""The collected table's names that are not ours."""
DATASETS = {"imagenet1k": "imagenet"}
"""The collected table's data sets that our sources name otherwise."""
NETS = {
    "imagenet": {
        "resnet18": "timm:resnet18",
        "resnet34": "timm:resnet34.tv_in1k",
        "resnet50": "timm:resnet50.tv_in1k",
        "mobilenetv1": "timm:mobilenetv1_100",
    }
}
"""By data set, the collected table's nets that our tasks name otherwise."""


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure.

    Attributes:
        dataset: data source, by our name.
        value: of the metric, in its unit; ``std`` where the source gives one.
        source, locator: where it stands.
        verified: the source itself was read.
    """

    method: str
    dataset: str
    teacher: str | None
    student: str
    metric: str
    value: float
    std: float | None
    source: str
    locator: str
    verified: bool


@dataclass(frozen=True)
class Comparison:
    """A claim beside our cell on a task of the same data and pair.

    Attributes:
        ours: None while the cell is empty.
        difference: ours minus the claim, in the metric's unit, with the cell's interval moved by the claim.
        reasons: why the two may differ.
    """

    claim: PublishedFigure
    task: str
    ours: CellStat | None
    difference: tuple[float, float | None, float | None] | None
    reasons: tuple[str, ...]


@functools.cache
def _collected() -> tuple[PublishedFigure, ...]:
    text = files("kdbench.results").joinpath("published_results.csv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines()):
        if row["method"] == "method":  # the table was joined from parts that each had a heading
            continue
        dataset = DATASETS.get(row["task"], row["task"])
        nets = NETS.get(dataset, {})
        found.append(
            PublishedFigure(
                METHOD_NAMES.get(row["method"], row["method"]),
                dataset,
                None if row["teacher"] in ("", "none") else nets.get(row["teacher"], row["teacher"]),
                nets.get(row["student"], row["student"]),
                row["metric"],
                float(row["value"]),
                float(row["std"]) if row["std"] else None,
                row["source"],
                row["source_locator"],
                "unverified" not in f"{row['source']} {row['source_locator']}",
            )
        )
    return tuple(found)


def claims(method: str) -> list[PublishedFigure]:
    """All published figures of a method: the collected table's, then its card's that the table lacks."""
    found = [claim for claim in _collected() if claim.method == method]
    have = {(c.dataset, c.teacher, c.student, c.metric, c.value) for c in found}
    ref = registry.method(method)
    if ref.variant is None:
        for c in ref.card.claims:
            if (c.source, c.teacher, c.student, c.metric, c.value) not in have:
                found.append(
                    PublishedFigure(
                        method, c.source, c.teacher, c.student, c.metric, c.value, None, c.reference, "", c.verified
                    )
                )
    return found


@functools.cache
def _all(methods: tuple[str, ...]) -> tuple[PublishedFigure, ...]:
    return tuple(claim for method in methods for claim in claims(method))


def on_task(spec: TaskSpec, methods: Sequence[str]) -> list[PublishedFigure]:
    """Published figures of registered methods on a task's data and pair, best first."""
    found = [claim for claim in _all(tuple(methods)) if matches(claim, spec)]
    return sorted(found, key=lambda claim: -claim.value if spec.score.higher_is_better else claim.value)


def matches(claim: PublishedFigure, spec: TaskSpec) -> bool:
    """Whether a task has a claim's data, or another copy of it, pair and metric."""
    source = spec.data.source
    same_data = source == claim.dataset or source.startswith(f"{claim.dataset}-")
    same_pair = spec.pair.student.net == claim.student and claim.teacher in (spec.teacher_net, None)
    return same_data and same_pair and spec.score.primary == claim.metric and spec.data.subset is None


def compare(method: str, rows: Sequence[ResultRow]) -> list[Comparison]:
    """Each claim of a method beside our cells on every task it matches.

    Args:
        rows: current cells, see :func:`kdbench.results.cells.rows`.
    """
    found = []
    for claim in claims(method):
        for spec in registry.readable_tasks()[0].values():
            if not matches(claim, spec):
                continue
            own = [
                row
                for row in rows
                if row.method == method
                and row.task == spec.name
                and row.current
                and not row.marks
                and row.ruleset == AS_PUBLISHED
            ]
            ours = next((row.score for row in own), None)
            found.append(Comparison(claim, spec.name, ours, _difference(ours, claim), _reasons(claim, spec)))
    return found


def _difference(ours: CellStat | None, claim: PublishedFigure) -> tuple[float, float | None, float | None] | None:
    if ours is None:
        return None
    low = None if ours.lo is None else ours.lo - claim.value
    high = None if ours.hi is None else ours.hi - claim.value
    return (ours.mean - claim.value, low, high)


def _reasons(claim: PublishedFigure, spec: TaskSpec) -> tuple[str, ...]:
    where = f"{claim.source} {claim.locator}".lower()
    rules = [
        (spec.data.source != claim.dataset, f"other data: {spec.data.source}"),
        ("best" in where and "last-epoch" not in where, "the source reports its best epoch on the test set"),
        (claim.std is None, "the source gives no spread over seeds"),
        (not claim.verified, "the source was not read"),
    ]
    return tuple(reason for broken, reason in rules if broken)
