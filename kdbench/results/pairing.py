"""Why no difference stands between two cells: the words beside what ``COMPARABLE`` of the index decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Cell = Mapping[str, Any]


def _one_protocol(a: Cell, b: Cell) -> bool:
    taught = bool(a["teacher_sha256"] and b["teacher_sha256"])
    return bool(a["protocol"] == b["protocol"] if taught else a["student_protocol"] == b["student_protocol"])


def _same_rows(a: Cell, b: Cell) -> bool:
    seen = (a["data_sha256"], b["data_sha256"])  # old records keep none
    return bool(
        a["data"] == b["data"] and a["test_sha256"] == b["test_sha256"] and (None in seen or seen[0] == seen[1])
    )


OBSTACLES: tuple[tuple[Callable[[Cell, Cell], bool], str], ...] = (
    (lambda a, b: a["engine_version"] == b["engine_version"], "another engine version"),
    (_same_rows, "other data"),
    (_one_protocol, "another protocol"),
    (lambda a, b: a["student_code"] == b["student_code"], "other code of the student's net"),
    (lambda a, b: not b["teacher_sha256"] or a["teacher_sha256"] in ("", b["teacher_sha256"]), "another teacher"),
    (lambda a, b: bool(set(a["seeds"]) & set(b["seeds"])), "no common seed"),
)
"""What two comparable cells have in common, and what is said where they do not; the last to matter comes last."""


def obstacle(cell: Cell, references: Iterable[Cell]) -> str:
    """Why a cell has no partner among the cells of a reference: that of the nearest one; "" where there is none.

    Args:
        cell, references: rows of ``v_cell`` of one task, device class and smoke mark.
    """
    found = [number for reference in references if (number := _first(cell, reference)) is not None]
    return OBSTACLES[max(found)][1] if found else ""


def _first(a: Cell, b: Cell) -> int | None:
    return next((number for number, (alike, _) in enumerate(OBSTACLES) if not alike(a, b)), None)
