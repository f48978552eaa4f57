"""What runs of one configuration that go on in one process have in common, whatever their seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kdbench.data.feed.dataset import Dataset

if TYPE_CHECKING:
    from kdbench.engine.teachers import TrainedTeacher


@dataclass
class Common:
    """All rows of the task and its trained teachers, by role: made by the first run that asks, for all."""

    _rows: Dataset | None = None
    _teachers: dict[str, TrainedTeacher] = field(default_factory=dict)

    def rows(self, load: Callable[[], Dataset]) -> Dataset:
        """The rows, which nobody changes."""
        if self._rows is None:
            self._rows = load()
        return self._rows

    def teacher(self, role: str, make: Callable[[], TrainedTeacher]) -> TrainedTeacher:
        """A teacher, trained and scored once; each run gets a network of its own, for a method may train it."""
        if role not in self._teachers:
            self._teachers[role] = make()
        made = self._teachers[role]
        return replace(made, net=copy.deepcopy(made.net))
