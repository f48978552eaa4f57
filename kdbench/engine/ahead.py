"""Batches of a stage, drawn several at a time and handed out one by one, so that a teacher can be asked about them all.

A batch follows from its number alone, so it is the same whenever it is drawn. Groups begin at the numbers that the
group's size divides: a run that resumes within one draws all of it again, and asks about the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import Batch, Out
from kdbench.data.feed.drawn import ByTensor
from kdbench.data.feed.loader import Loader

Draw = Callable[[int], Batch]
"""The batch of a number."""


class Answers:
    """What one teacher said of a group: an answer for each of its batches."""

    def __init__(self, outs: Sequence[Out]) -> None:
        self._outs = outs
        self._given: dict[int, int] = {}

    def take(self, place: int) -> Out | None:
        """The answer for a batch; None where it was given before and has been written to since."""
        out = self._outs[place]
        writes = sum(tensor._version for tensor in tensors(out))
        return out if self._given.setdefault(place, writes) == writes else None


class Group:
    """Batches that were drawn together.

    Args:
        first: number of the first one.

    Attributes:
        answers: what was said of them, by who said it.
    """

    def __init__(self, first: int, batches: Sequence[Batch]) -> None:
        self.first, self.batches = first, batches
        self.answers: dict[Any, Answers] = {}
        self._places: ByTensor[int] = ByTensor()
        for place, batch in enumerate(batches):
            for x in batch.x.values():
                self._places.note(x, place)

    def batch(self, number: int) -> Batch | None:
        """The batch of a number, if it is one of these."""
        place = number - self.first
        return self.batches[place] if 0 <= place < len(self.batches) else None

    def place(self, x: Tensor) -> int | None:
        """Which of the batches an input is of; None of values that no batch came with."""
        return self._places.of(x)

    @property
    def rows(self) -> list[int]:
        """Rows of each batch, all its views."""
        return [len(batch) for batch in self.batches]

    def joined(self) -> Batch:
        """All batches as one of one view; targets are left out of it."""
        first, index = self.batches[0], torch.cat([batch.index for batch in self.batches])
        x = {name: torch.cat([batch.x[name] for batch in self.batches]) for name in first.x}
        present = {name: torch.cat([batch.present[name] for batch in self.batches]) for name in first.present}
        return Batch(x, None, index, present=present)


class Ahead:
    """The batches of a run's stages, drawn in groups.

    Args:
        many: batches of a group.
        say: told in one line what is asked otherwise.

    Attributes:
        group: the batches at hand; None where none are drawn ahead.
    """

    def __init__(self, many: int, say: Callable[[str], None]) -> None:
        self.many = many
        self.group: Group | None = None
        self._say = say
        self._said: set[str] = set()

    def over(self, stage: str, loader: Loader, draw: Draw, end: int | None) -> Draw:
        """How a stage's batches are drawn from now on.

        Args:
            loader: of the stage.
            draw: draws one.
            end: batches that the stage draws in all; None where nobody knows before.
        """
        self.group = None
        if (reason := _alone(loader)) is not None:
            self.say_once(f"stage {stage!r} {reason}; its teachers are asked batch by batch")
            return draw

        def drawn(number: int) -> Batch:
            batch = self.group.batch(number) if self.group is not None else None
            if batch is None:
                self.group = None  # what it holds makes room first
                first = number - number % self.many
                past = first + self.many
                past = past if end is None or number >= end else min(past, end)
                self.group = Group(first, [draw(other) for other in range(first, past)])
                batch = self.group.batches[number - first]
            return batch

        return drawn

    def say_once(self, line: str) -> None:
        """Says a line, the first time."""
        if line not in self._said:
            self._said.add(line)
            self._say(f"engine.teacher_ahead: {line}")


def tensors(out: Out) -> list[Tensor]:
    """All that an answer holds, of a net without a detector's head."""
    return [tensor for value in out[:] if value is not None for tensor in _several(value)]


def _several(value: Any) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else value


def _alone(loader: Loader) -> str | None:
    """Why a stage's batches are not joined, what it does; None where they are."""
    if not isinstance(loader.rows.y, Tensor):
        return "has targets of many numbers a row"
    if loader.views is not None and loader.views.hide is not None:
        return "hides patches of its pictures"
    return None
