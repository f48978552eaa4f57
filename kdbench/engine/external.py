"""Scores of the deployed network on a task's further test sets (``score.external``)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from kdbench import data as sources
from kdbench.base.errors import UserError
from kdbench.data import status
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
    """The further test sets of a task, read before training so that one that cannot be read costs nothing.

    A source whose data are not at hand is left out, in a line: what decides nothing stops no run and downloads nothing.
    A run that is scored on validation rows has none: no test row may tell a search. A smoke run has none: it is no
    result, and starts sooner without.

    Raises:
        UserError: a set cannot be read in the place of the task's test rows.
    """

    def __init__(self, task: Task, place: RunPlace, smoke: bool) -> None:
        self._task, self._sets = task, {}
        given = {} if smoke or task.spec.data.validation is not None else task.spec.score.external
        if not given:
            return
        from kdbench.data.feed.external import rows_of  # torchvision takes a while to import

        data = task.data.only([task.spec.pair.student.input])
        at = Place(place.data, place.home.data, place.progress)
        for name, one in given.items():
            where, other = f"score.external.{name}", None
            if one.source is not None:
                if (missing := status.missing(one.source, one.options, at.folder, at.cache)) is not None:
                    place.progress.tell(f"{where} is left out: {missing}")
                    continue
                try:
                    other = sources.load(Data(source=one.source, options=one.options), at)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from error
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
