"""What the board knows beside the records: the cards of the methods and the specifications of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from kdbench.specs import registry
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import TaskSpec


@dataclass(frozen=True)
class Catalogue:
    """Methods by full name and tasks by name. A record may name one that is in neither."""

    methods: Mapping[str, MethodRef] = field(default_factory=dict)
    tasks: Mapping[str, TaskSpec] = field(default_factory=dict)

    @classmethod
    def installed(cls) -> Self:
        """All that is built in or comes with a plugin."""
        return cls(registry.methods(), registry.tasks())

    def parity(self, method: str) -> str:
        """``verified``, ``exact`` or ``unverified`` as the card says, ``unknown`` without a card."""
        return self.methods[method].card.parity if method in self.methods else "unknown"
