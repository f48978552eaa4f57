"""What readers sort methods by: the family, the year of the paper, and what the method asks of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.leaderboard.model.board import Board

REFERENCE = "reference"
"""The family of what methods are compared with, which comes from no paper."""
_USUAL = frozenset(("kinds", "min_batch"))
_NOTHING: tuple[Any, ...] = (False, None, 0, 1, "", [], "eval")


@dataclass(frozen=True)
class Facts:
    """Of a method with a card: ``asks`` are the things that its newest runs asked for, as words."""

    family: str
    year: int
    asks: tuple[str, ...]


def asked(needs: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a run asked for, what not every method asks for, by its word."""
    return {
        name.replace("_", " "): value
        for name, value in sorted(needs.items())
        if name not in _USUAL and value not in _NOTHING
    }


def asks_of(needs: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run asked of a task that may be a reason to want, or not to want, the method."""
    found = ["a teacher"] if needs.get("teachers") else ["no teacher"]
    found += sorted({f"the teacher’s {field.partition(':')[0]}" for field in needs.get("teacher", ())})
    found += [f"{word} of a batch" for word in needs.get("batch", ())]
    found += [f"data that are {word}" for word in needs.get("data", ())]
    said = {
        "several views of a row": needs.get("views", 1) > 1,
        "several students": needs.get("students", 1) > 1,
        "a teacher that it trains": needs.get("trains_teacher"),
        "another deployed network": needs.get("changes_student"),
    }
    return (*found, *(word for word, so in said.items() if so))


def facts_of(board: Board) -> dict[str, Facts]:
    """By method; none of a method without a card."""
    newest = {row.method: row.result.runs[min(row.result.runs)] for row in board.entries}
    return {
        name: Facts(ref.card.family, ref.card.year, asks_of(board.source.settings[newest[name]]["needs"]))
        for name, ref in board.catalogue.methods.items()
        if name in newest
    }
