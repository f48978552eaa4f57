"""Which methods are worth a try on a task: by what they need, what they cost, and what is published of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kdbench.distill.evidence import Evidence, evidence
from kdbench.specs import registry
from kdbench.specs.registry import PLAIN
from kdbench.specs.task import TaskSpec
from kdbench.sweep.plan import inapplicable

KD = "kd"
"""The baseline that everyone asks for."""
REFERENCE = "what every gain is measured against"
"""Why plain is tried."""
DEAREST = 10.0
"""Recipe cost over plain's beyond which a method is no first try."""
LIKE = ("classification",)
"""Whose runs stand in for a kind that has no published ones."""


@dataclass(frozen=True)
class Candidate:
    """A method to try, and why."""

    method: str
    why: str
    evidence: Evidence | None = None


def situation(spec: TaskSpec) -> str:
    """What published runs of a task like this one are filed under: its kind, or that student and teacher see
    different inputs."""
    own = spec.pair.student.input
    crossed = any(teacher.input != own for teacher in spec.pair.teachers.values())
    return "crossmodal" if crossed and spec.kind == "classification" else spec.kind


def recommended(spec: TaskSpec) -> list[Candidate]:
    """plain and kd, then what the published runs speak for, the most telling first; one variant a method.

    In order of the share of the gap to the teacher that a method closed beyond plain trained for as long, or beyond
    plain where that is not published; methods that cost more than :data:`DEAREST` times plain are left out, and so are
    those whose card refuses the task.
    """
    found = [Candidate(PLAIN, REFERENCE)]
    if spec.pair.teachers and _applies(KD, spec):
        known = _of(spec).get(KD)
        found.append(Candidate(KD, "the baseline of the field" + (f"; {known.words}" if known else ""), known))
    cards = {candidate.method for candidate in found}
    for one in _in_order(spec):
        card = registry.method(one.method).card.name
        if card not in cards and _applies(one.method, spec):
            cards.add(card)
            found.append(Candidate(one.method, one.words, one))
    return found


def named(methods: Sequence[str], spec: TaskSpec) -> list[Candidate]:
    """Methods that a person names, plain before them."""
    known = _of(spec)
    others = [name for name in dict.fromkeys(methods) if name != PLAIN]
    chosen = [Candidate(name, known[name].words if name in known else "named", known.get(name)) for name in others]
    return [Candidate(PLAIN, REFERENCE), *chosen]


def recipe(method: str, spec: TaskSpec) -> float:
    """About how many times plain a method costs: as published, 2 where nothing is."""
    known = _of(spec).get(method)
    published = known.recipe if known is not None else None
    return 1.0 if method == PLAIN else 2.0 if published is None else published


def _of(spec: TaskSpec) -> dict[str, Evidence]:
    own = {method: one for (kind, method), one in evidence().items() if kind == situation(spec)}
    return own or {method: one for (kind, method), one in evidence().items() if kind in LIKE}


def _in_order(spec: TaskSpec) -> Iterator[Evidence]:
    known = [one for one in _of(spec).values() if (one.recipe or 0.0) <= DEAREST and not one.failed and one.worth > 0]
    yield from sorted(known, key=lambda one: (-one.worth, one.method))


def _applies(method: str, spec: TaskSpec) -> bool:
    known = registry.methods()
    return method in known and inapplicable(known[method], spec) is None
