"""What kdbench has, by name. Imports no torch."""

from __future__ import annotations

from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.task import TaskSpec


def methods(*, kind: str | None = None, family: str | None = None) -> dict[str, Card]:
    """Methods and variants by name, each with its card: paper, hyper-parameters with sources, needs, claims.

    Args:
        kind: those that run on this kind of task.
        family: those of this family.
    """
    found = registry.methods().items()
    return {
        name: ref.card
        for name, ref in found
        if (family is None or ref.card.family == family) and (kind is None or ref.kinds is None or kind in ref.kinds)
    }


def tasks(*, kind: str | None = None, ranked: bool | None = None) -> dict[str, TaskSpec]:
    """Tasks by name, each with its specification.

    Args:
        kind: those of this kind.
        ranked: those that are ranked, or those that are not.
    """
    found, _ = registry.readable_tasks()
    return {
        name: spec
        for name, spec in found.items()
        if (kind is None or spec.kind == kind) and (ranked is None or spec.ranked == ranked)
    }
