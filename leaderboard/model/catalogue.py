"""What the board knows beside the records: the cards of the methods and the specifications of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from kdbench import kinds
from kdbench.base.home import Home
from kdbench.specs import registry, tuned
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import TunedEntry


@dataclass(frozen=True)
class Catalogue:
    """Methods by full name, tasks by name, searches of hyper-parameters. A record may name what is in neither."""

    methods: Mapping[str, MethodRef] = field(default_factory=dict)
    tasks: Mapping[str, TaskSpec] = field(default_factory=dict)
    searches: tuple[TunedEntry, ...] = ()

    @classmethod
    def installed(cls, home: Home | None = None) -> Self:
        """All that is built in or comes with a plugin; of a home its searches too."""
        found = tuned.listed(tuned.TUNED, home or Home.nowhere())
        return cls(registry.methods(), registry.tasks(), tuple(one.entry for one in found if not one.changed))

    def refusal(self, method: str, kind: str) -> str | None:
        """Why a method cannot run on tasks of a kind, as far as its card tells; one without a card might (None)."""
        return kinds.refusal(self.methods[method].card.kinds, kind) if method in self.methods else None

    def caution(self, method: str, task: str) -> str:
        """What a card says of the method's number on a task, "" where it says nothing."""
        card = self.methods[method].card if method in self.methods else None
        said = card.cautions if card is not None else []
        return " ".join(one.text for one in said if one.task == task and card and method == (one.method or card.name))

    def parity(self, method: str) -> str:
        """``verified``, ``exact`` or ``unverified`` as the card says, ``unknown`` without a card."""
        return self.methods[method].card.parity if method in self.methods else "unknown"
