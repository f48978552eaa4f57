"""Worker processes that make whole batches ahead of time: stored pictures decoded, views of raw pixels computed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive, generator
from kdbench.contract import Partners, Views
from kdbench.data.feed.stored import Stored

MOST_WORKERS = 8
STRETCH = 50
"""Batches drawn at a time of which rows of like length meet."""
AHEAD = 4
"""Batches each worker makes ahead."""


def default_workers() -> int:
    """One process a core but for the training one, at most ``MOST_WORKERS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST_WORKERS, cores - 1))


@dataclass(frozen=True)
class Order:
    """Which rows a batch holds.

    Attributes:
        seed: of the shuffle; None keeps the rows in order.
        partners: draws a partner for each row; a batch then holds its rows and, behind them, theirs.
        lengths: (rows,), on the CPU: rows of like length meet in a batch, so that little of it is padding; None draws
            all rows alike.
    """

    rows: int
    batch: int
    steps: int
    seed: int | None
    stage: str
    partners: Partners | None = None
    lengths: Tensor | None = None

    def epoch(self, epoch: int) -> Tensor:
        """(1, rows) row numbers in the order of an epoch, on the CPU; (2, rows) with those of their partners."""
        if self.seed is None:
            return torch.arange(self.rows)[None]
        rows = torch.randperm(self.rows, generator=generator("cpu", self.seed, "order", self.stage, epoch))
        if self.lengths is not None:
            rows = self._alike(rows, generator("cpu", self.seed, "lengths", self.stage, epoch))
        if self.partners is None:
            return rows[None]
        return torch.stack([rows, self.partners(rows, generator("cpu", self.seed, "partners", self.stage, epoch))])

    def _alike(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Rows in another order: of each stretch the batches hold rows of like length; a partial batch stays last."""
        assert self.lengths is not None
        whole = len(rows) - len(rows) % self.batch
        near = [part[self.lengths[part].argsort(stable=True)] for part in rows[:whole].split(self.batch * STRETCH)]
        batches = torch.cat(near).view(-1, self.batch)
        shuffled = batches[torch.randperm(len(batches), generator=rng)]
        return torch.cat([shuffled.flatten(), rows[whole:]])

    def held(self, epoch: Tensor, place: int) -> Tensor:
        """The row numbers in a batch of an epoch, given all of it and the batch's place."""
        return epoch[:, place * self.batch : (place + 1) * self.batch].flatten()


class HostDraw(TorchDataset[dict[str, Tensor]]):
    """The host's part of batch ``number``, a function of that number alone.

    Args:
        columns: stored columns, and uint8 tensors that ``views`` reads; parts of targets that are read when drawn.
        order: which rows a batch holds.
        least: smallest share of a picture that a random crop keeps, None for the centre.
        views: views computed here from raw pixels, or crops drawn anew for each; view-major rows.
        leaders: input to the one whose draws it takes, where another shows the same picture.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        order: Order,
        least: float | None,
        views: Views | None,
        leaders: Mapping[str, str] | None = None,
    ) -> None:
        self._leaders = leaders or {}
        self.columns = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in columns.items()}
        self.order, self.least, self.views = order, least, views
        self._epoch: tuple[int, Tensor] | None = None

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        order = self.order
        epoch, place = divmod(number, order.steps)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, order.epoch(epoch))
        index = order.held(self._epoch[1], place)
        if self.views is not None and self.views.anew:
            index = index.repeat(self.views.n)
        found = {}
        for name, column in self.columns.items():
            first = self._leaders.get(name, name)
            if isinstance(column, Stored):
                rng = None
                if self.least is not None:
                    rng = np.random.default_rng(derive(order.seed or 0, "decode", order.stage, number, first))
                like = self.columns.get(first)
                pixels = column.read(index, rng, self.least or 1.0, like if isinstance(like, Stored) else None)
            else:
                pixels = column[index]
            if self.views is not None and self.views.host and self._leaders.get(self.views.input) == first:
                draws = generator("cpu", order.seed or 0, "views", order.stage, number)
                pixels = self.views.fn(pixels, draws).flatten(0, 1)
            found[name] = pixels
        return found


class Stream:
    """Batches by number, made ahead by worker processes as long as the numbers rise by one.

    Args:
        source: makes one batch.
        workers: processes; 0 makes each batch when it is asked for.
        pins: batches of workers are put into page-locked memory.
    """

    def __init__(self, source: HostDraw, workers: int, pins: bool) -> None:
        self.source, self.workers, self.pins = source, workers, pins
        self._next = -1
        self._batches: Iterator[dict[str, Tensor] | UserError] = iter(())

    def get(self, number: int) -> dict[str, Tensor]:
        """Batch ``number``."""
        if self.workers == 0:
            return self.source[number]
        if number != self._next:
            self._batches = iter(self._loader(number))
        self._next = number + 1
        made = next(self._batches)
        if isinstance(made, UserError):
            raise made
        return made

    def close(self) -> None:
        """End the worker processes; a later :meth:`get` starts others."""
        self._next, self._batches = -1, iter(())

    def _loader(self, first: int) -> DataLoader[dict[str, Tensor] | UserError]:
        return DataLoader(
            _Guarded(self.source),
            batch_size=None,
            sampler=_From(first),
            num_workers=self.workers,
            prefetch_factor=AHEAD,
            pin_memory=self.pins,
            generator=torch.Generator(),  # or starting workers would draw from the run's own generator
            # Views are closures of a method: only a forked process has them without pickling.
            multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
        )


class _Guarded(TorchDataset["dict[str, Tensor] | UserError"]):
    """Hands a user's error over as it is: the loader would wrap it in a traceback."""

    def __init__(self, source: HostDraw) -> None:
        self.source = source

    def __getitem__(self, number: int) -> dict[str, Tensor] | UserError:
        try:
            return self.source[number]
        except UserError as error:
            return error


class _From(torch.utils.data.Sampler[int]):
    """``first``, ``first + 1``, ... without end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += 1
