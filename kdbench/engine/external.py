"""Scores of the deployed network on a task's further test sets (``score.external``)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from kdbench import data as sources
from kdbench.base.errors import UserError
from kdbench.data.decode.place import Place
from kdbench.engine.place import RunPlace
from kdbench.engine.task import Task
from kdbench.kinds.base import Evidence
from kdbench.specs.data import Data


@dataclass(frozen=True)
class Scored:
    """A score on rows from elsewhere.

    Attributes:
        value: the primary metric.
        items: rows scored.
        sha256: of what decides these rows.
        about: what they are.
    """

    value: float
    items: int
    sha256: str
    about: str


class Externals:
    """The further test sets of a task, read before training so that a missing one costs nothing.

    A run that is scored on validation rows has none: no test row may tell a search.

    Raises:
        UserError: a set cannot be read in the place of the task's test rows.
    """

    def __init__(self, task: Task, place: RunPlace) -> None:
        self._task, self._sets = task, {}
        given = task.spec.score.external if task.spec.data.validation is None else {}
        if not given:
            return
        from kdbench.data.feed.external import rows_of  # torchvision takes a while to import

        data = task.data.only([task.spec.pair.student.input])
        at = Place(place.data, place.home.data, place.progress)
        for name, one in given.items():
            asked = None if one.source is None else Data(source=one.source, options=one.options)
            try:
                other = None if asked is None else sources.load(asked, at)
            except UserError as error:
                raise UserError(f"score.external.{name}: {error}") from error
            self._sets[name] = (one.words, rows_of(name, one, data, task.device, other))

    def scores(self, net: nn.Module) -> dict[str, Scored]:
        """The primary metric of a network by set."""
        task, primary = self._task, self._task.spec.score.primary
        found = {}
        for name, (words, rows) in self._sets.items():
            evidence = Evidence(task.answers(net, rows, [primary]), rows.y, k=task.spec.score.k)
            value = task.score([primary], evidence)[primary]
            found[name] = Scored(value, len(rows.y), rows.sha256, words)
        return found
