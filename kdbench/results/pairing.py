"""Differences between cells, and why none stands: the words beside what ``COMPARABLE`` of the index decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kdbench import kinds
from kdbench.stats import PairedDelta, clipped_difference, paired_delta

Cell = Mapping[str, Any]
Rule = Callable[[Cell, Cell], bool]


def _one_protocol(a: Cell, b: Cell) -> bool:
    taught = bool(a["teacher_sha256"] and b["teacher_sha256"])
    return bool(a["protocol"] == b["protocol"] if taught else a["student_protocol"] == b["student_protocol"])


def _same_rows(a: Cell, b: Cell) -> bool:
    seen = (a["data_sha256"], b["data_sha256"])  # old records keep none
    return bool(
        a["data"] == b["data"] and a["test_sha256"] == b["test_sha256"] and (None in seen or seen[0] == seen[1])
    )


OBSTACLES: tuple[tuple[Rule, str], ...] = (
    (lambda a, b: a["ruleset"] == b["ruleset"], "another ruleset"),
    (lambda a, b: a["engine_version"] == b["engine_version"], "another engine version"),
    (_same_rows, "other data"),
    (_one_protocol, "another protocol"),
    (lambda a, b: a["student_code"] == b["student_code"], "other code of the student's net"),
    (lambda a, b: not b["teacher_sha256"] or a["teacher_sha256"] in ("", b["teacher_sha256"]), "another teacher"),
    (lambda a, b: bool(set(a["seeds"]) & set(b["seeds"])), "no common seed"),
)
"""What two comparable cells have in common, and what is said where they do not; the last to matter comes last."""


def obstacle(cell: Cell, references: Iterable[Cell], *, any_protocol: bool = False) -> str:
    """Why a cell has no partner among the cells of a reference: that of the nearest one; "" where there is none.

    Args:
        cell, references: rows of ``v_cell`` of one task, device class and smoke mark.
        any_protocol: the protocols may differ: a method of its own protocol is matched by plain of the task's.
    """
    rules = [rule for rule in OBSTACLES if not any_protocol or rule[0] is not _one_protocol]
    numbers = (_first(rules, cell, reference) for reference in references)
    found = [number for number in numbers if number is not None]
    return rules[max(found)][1] if found else ""


def _first(rules: Sequence[tuple[Rule, str]], a: Cell, b: Cell) -> int | None:
    return next((number for number, (alike, _) in enumerate(rules) if not alike(a, b)), None)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], cell: Cell) -> PairedDelta | None:
    """Difference of two cells' scores by seed, positive where ours is better; None without a common seed.

    Args:
        cell: a row of ``v_cell``, for metric and direction.
    """
    if not ours.keys() & theirs.keys():
        return None
    metric = kinds.metrics().get(cell["metric"])
    delta = paired_delta(ours, theirs, "max" if cell["higher_is_better"] else "min")
    return clipped_difference(delta, *metric.bounds) if metric is not None else delta
