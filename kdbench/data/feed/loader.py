"""Batches of a training stage, and test batches.

Small rows live on the training device and are augmented there, a whole batch at once; stored pictures and views made
on the host come from worker processes (:mod:`kdbench.data.feed.stream`). Which rows a batch holds and how they are
augmented depends on (seed, stage, draw number) alone: a run that resumes at any draw or has other workers sees equal
batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.base.seeds import derive
from kdbench.contract import Batch, NotApplicable, Partners, Placed, Rows, Sentences, Views
from kdbench.data.feed import kept
from kdbench.data.feed.augment import Augmentation, augmentation
from kdbench.data.feed.dataset import Alike, Dataset, device_of
from kdbench.data.feed.drawn import Choice, Draws
from kdbench.data.feed.moved import Moves, moved_size, moves
from kdbench.data.feed.stored import Stored
from kdbench.data.feed.stream import HostDraw, Order, Stream, default_workers
from kdbench.devices import backends

PIXELS = 2**22
"""Of a batch of pictures whose targets are places: maps of large ones would not fit into memory."""
_NO_DRAWS = torch.Generator()
"""Stands where a batch needs no draws."""


class Loader:
    """Batches of a training stage.

    Args:
        data: how raw values become inputs.
        rows: raw training rows on the device, stored columns apart; regression targets already scaled.
        augment: augmentation names, applied to every input of image or clip shape.
        batch: rows of a batch.
        seed: the run's seed.
        stage: name of the stage, part of the stream's name.
        views: several views of each row, or None.
        drop_below: a last partial batch of fewer rows is left out.
        partners: draws a second row for each, which becomes the second view.
        workers: processes that read stored pictures and make host views; 0 does so in this one.
        draws: told which rows each batch holds and what was made of them; None where nobody asks.

    Attributes:
        steps: batches of an epoch.
        smallest: rows of its smallest batch.
        n_views: views that a batch holds, those of partners among them.
        unnumbered: why no number tells what a batch holds of a row, what the stage does; None where one does.
        rng: of what is drawn on the device for a batch; set anew for each.
    """

    def __init__(
        self,
        data: Dataset,
        rows: Rows,
        augment: Sequence[str],
        batch: int,
        seed: int,
        stage: str,
        views: Views | None = None,
        drop_below: int = 1,
        partners: Partners | None = None,
        workers: int | None = None,
        draws: Draws | None = None,
    ) -> None:
        self.data, self.rows, self.views = data, rows, views
        self.batch = min(batch, len(rows.y))
        self.seed, self.stage = seed, stage
        self.device = device_of(rows.y)
        self.rng = torch.Generator(self.device)
        if views is not None and views.hide is not None:
            views.hide.grid(data.shape(views.input))  # refused before a step is made
        viewed = [name for name in (*rows.x, *data.derived) if views is not None and data.alike(views.input, name)]
        self._viewed = frozenset(viewed)
        self._moves: Moves | None = moves(augment) if isinstance(rows.y, Placed) else None
        chosen = augmentation(augment if self._moves is None else ())
        self.augment = chosen.without(views.replaces if views is not None else ())
        rest = len(rows.y) % self.batch
        partial = rest if rest >= max(1, drop_below) else 0
        self.steps = len(rows.y) // self.batch + bool(partial)
        self.smallest = partial or self.batch
        if isinstance(rows.y, Sentences) and (views is not None or partners is not None):
            raise NotApplicable("it makes views of a row or draws partners for it, and a sentence has neither")
        if isinstance(rows.y, Sentences) and augment:
            raise UserError(f"data.augment: {', '.join(augment)} is of pictures, and sentences are read; leave it out")
        lengths = rows.y.counts.cpu() if isinstance(rows.y, Sentences) else None
        self._order = Order(len(rows.y), self.batch, self.steps, seed, stage, partners, lengths)
        self.n_views = (views.n if views is not None else 1) * (1 if partners is None else 2)
        self.unnumbered = self._unnumbered(chosen)
        self._draws = draws if self.unnumbered is None else None
        self._placed: tuple[int, Tensor] | None = None
        self._host = self._on_host()
        if chosen.least is not None and any(_is_pixels(x) for x in rows.x.values()):
            raise UserError("data.augment: resized_crop needs pictures that are read from disk; use crop<pixels> here")
        columns: dict[str, Any] = {name: rows.x[name] for name in self._host}
        leaders = {name: data.leader(name) for name in columns}
        columns |= kept.columns(rows)
        self._y = kept.without(rows.y)
        draw = HostDraw(columns, self._order, chosen.least, self._host_views, leaders)
        pins = backends.of(self.device).pins
        if self._moves is not None:
            self._require_one_picture(augment)
        self._stream = Stream(draw, default_workers() if workers is None else workers, pins) if columns else None
        # Rows that no augmentation touches are normalised once instead of at every draw.
        still = {name: x for name, x in rows.x.items() if not self._is_touched(name)}
        self._still, self._still_present = data.finish(still)

    def _unnumbered(self, chosen: Augmentation) -> str | None:
        if isinstance(self.rows.y, Sentences):
            return "reads sentences"
        if self.views is not None or self.n_views > 1:
            return "makes views of a row"
        if self._moves:
            return "moves targets with their pictures"
        endless = chosen.endless()
        return f"sees another picture at every draw ({', '.join(endless)})" if endless else None

    @property
    def _host_views(self) -> Views | None:
        return self.views if self.views is not None and (self.views.host or self.views.anew) else None

    def _on_host(self) -> list[str]:
        """Inputs that worker processes make."""
        made = self.views is not None and self.views.host
        return [name for name, x in self.rows.x.items() if isinstance(x, Stored) or (made and self._is_viewed(name))]

    def _is_viewed(self, name: str) -> bool:
        """Whether a stage's views are of this input, or of another that shows the same picture."""
        return name in self._viewed

    def _require_one_picture(self, augment: Sequence[str]) -> None:
        """Places are those of one picture, and move with it; other inputs are that one, reduced after it moved."""
        pictures = [name for name, x in self.rows.x.items() if isinstance(x, Stored) or _is_pixels(x)]
        cut = any(isinstance(x, Stored) and x.geometry.resize is not None for x in self.rows.x.values())
        if cut or len(pictures) != 1:
            raise UserError(
                "pictures whose targets are places in them are seen whole (`kind: image`, or `kind: picture` with "
                "`fit: scale`), one input for student and teachers; here are "
                f"{', '.join([*self.rows.x, *self.data.derived])}"
            )
        sides = moved_size(augment, self.data.shape(pictures[0])[-2:])
        for name in self.data.derived:
            if any(side % self.data.reduced(name) for side in sides):
                raise UserError(
                    f"data.inputs.{name}: training sees {sides[0]}x{sides[1]} pixels of a picture, which reduce: "
                    f"{self.data.reduced(name)} does not divide; change the window of data.augment"
                )
        if self.views is not None and self.views.where == "raw":
            raise NotApplicable("it makes views of raw pixels, with which the targets would not move")

    def _is_touched(self, name: str) -> bool:
        drawn = _is_pixels(self.rows.x[name]) and bool(self.augment or self._moves)
        return name in self._host or self._is_viewed(name) or drawn

    def _index(self, number: int) -> Tensor:
        epoch, place = divmod(number, self.steps)
        if self._placed is None or self._placed[0] != epoch:
            self._placed = (epoch, self._order.epoch(epoch).to(self.device))
        return self._order.held(self._placed[1], place)

    @property
    def on_device(self) -> bool:
        """Whether :meth:`made` is work of the device alone on tensors of one shape, which a captured step can hold."""
        alike = bool(self.data.shows)  # their draws are equal by a generator's state, which the host sets
        return self._stream is None and self._draws is None and isinstance(self.rows.y, Tensor) and not alike

    def close(self) -> None:
        """End the worker processes, where there are any."""
        if self._stream is not None:
            self._stream.close()

    def chosen(self, number: int) -> Tensor:
        """(rows,) numbers of the rows of batch ``number``, from 0 over all epochs; ``rng`` begins the batch's draws."""
        self.rng.manual_seed(derive(self.seed, "augment", self.stage, number))
        return self._index(number)

    def draw(self, number: int) -> Batch:
        """Batch ``number`` of the stage, counted from 0 over all epochs."""
        index = self.chosen(number)
        read = self._stream.get(number) if self._stream is not None else {}
        return self.made(index, {name: x.to(self.device, non_blocking=True) for name, x in read.items()})

    def made(self, index: Tensor, read: Mapping[str, Tensor] | None = None) -> Batch:
        """The batch of some rows, augmented by draws from ``rng``.

        Args:
            index: (rows,) their numbers.
            read: what workers made of them, on the device.
        """
        n_views = self.views.n if self.views is not None else 1
        raw = {name: x[index] for name, x in self.rows.x.items() if self._is_touched(name) and name not in self._host}
        raw |= read or {}
        rng = self.rng if raw else _NO_DRAWS
        if isinstance(self.rows.y, Sentences):
            return self.rows.y.drawn(index, {name: values[index] for name, values in self._still.items()})
        y = kept.filled(self._y[index], raw)
        if self._moves:
            for name in raw:
                for move in self._moves:
                    raw[name], y = move(raw[name], y, rng)
        alike = Alike(self.data, rng)
        choices = {name: Choice() for name in self.rows.x}
        moved = {
            name: self._augmented(name, values, alike.draws(name) or rng, choices[name]) for name, values in raw.items()
        }
        x, present = self.data.finish(moved, rng)
        if self.views is not None and self.views.where == "final":
            alike = Alike(self.data, rng)
            for name in [name for name in x if self._is_viewed(name)]:
                x[name] = self.views.fn(x[name], alike.draws(name) or rng).flatten(0, 1)
        for name, values in self._still.items():
            x[name] = _repeat(values[index], n_views)
        for name, mask in self._still_present.items():
            present[name] = mask[index]
        visible, seen = self._visible(len(index), rng)
        present = {name: _repeat(mask, n_views * len(index) // len(mask)) for name, mask in present.items()}
        x = {name: _repeat(values, n_views * len(index) // len(values)) for name, values in x.items()}
        if self._draws is not None:
            for name, choice in choices.items():
                self._draws.note(x[name], index, choice, self.batch)
        return Batch(x, y.repeat(n_views), index.repeat(n_views), self.n_views, present, visible=visible, seen=seen)

    def _visible(self, rows: int, rng: torch.Generator) -> tuple[Tensor | None, int | None]:
        """Which patches of a batch are seen, and how many of a picture; of several views each has its own."""
        if self.views is None or self.views.hide is None:
            return None, None
        hide, shape = self.views.hide, self.data.shape(self.views.input)
        return hide.draw(self.n_views * rows, shape, rng).to(self.device), hide.seen(hide.grid(shape))

    def _augmented(self, name: str, raw: Tensor, rng: torch.Generator, choice: Choice) -> Tensor:
        """Raw rows after views of raw pixels and augmentation; inputs of different pictures get draws of their own."""
        views, viewed = self.views, self._is_viewed(name)
        drawn = views is not None and views.anew and name in self._host  # a crop for each view
        if views is not None and not drawn and not (viewed and views.where == "final"):
            if not viewed:
                raw = _repeat(raw, views.n)
            elif not views.host:
                raw = views.fn(raw, rng).flatten(0, 1)
        if _is_pixels(raw):
            base = tuple(self.rows.x[self.data.leader(name)].shape[-2:])
            for fn in self.augment:
                raw = fn(raw, rng, base=base, choice=None if self._draws is None else choice)
        return raw


def _is_pixels(x: Tensor | Stored) -> bool:
    """Pictures or clips held as pixels."""
    return not isinstance(x, Stored) and x.dtype is torch.uint8 and x.ndim >= 4


def _repeat(rows: Tensor, times: int) -> Tensor:
    """Rows once for each view, view-major."""
    return rows if times == 1 else rows.repeat(times, *[1] * (rows.ndim - 1))


class RawInOrder:
    """Raw rows in order, as (row numbers, rows), in batches of at most 64 where stored, :class:`Placed` or sentences.

    Attributes:
        stored: inputs that are read from disk.
    """

    def __init__(self, rows: Rows, batch: int = 1000, workers: int | None = None) -> None:
        self._rows = rows
        self.stored = {name: x for name, x in rows.x.items() if isinstance(x, Stored)}
        self._read = {**self.stored, **kept.columns(rows)}
        self._y = kept.without(rows.y)
        self._workers = default_workers() if workers is None else workers
        size = min(batch, 64) if self.stored or isinstance(rows.y, Placed | Sentences) else batch
        if isinstance(rows.y, Placed):
            size = max(1, min(size, PIXELS // max(prod(x.shape[2:]) for x in rows.x.values())))
        self._parts = torch.arange(len(rows.y), device=device_of(rows.y)).split(size)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Rows]]:
        rows = self._rows
        order = Order(len(rows.y), len(self._parts[0]), len(self), None, "")
        workers, pins = self._workers if self._read else 0, backends.of(device_of(rows.y)).pins
        stream = Stream(HostDraw(self._read, order, None, None), workers, pins)
        for number, index in enumerate(self._parts):
            raw = {name: x[index] for name, x in rows.x.items() if name not in self.stored}
            raw |= {name: x.to(device_of(rows.y)) for name, x in stream.get(number).items()}
            y = kept.filled(self._y[index], raw)
            yield index, Rows(raw, y)


class InOrder:
    """Rows in order, normalised, not augmented. Iterating again reads again; rows on the device are made ready once.

    Attributes:
        y: (N,) all targets.
    """

    def __init__(self, data: Dataset, rows: Rows, batch: int = 1000, workers: int | None = None) -> None:
        self.y = rows.y
        self._data, self._raw = data, RawInOrder(rows, batch, workers)
        self._ready = None if self._raw.stored else list(self._made())

    def _made(self) -> Iterator[Batch]:
        return (self._data.batch(rows, index) for index, rows in self._raw)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._made() if self._ready is None else self._ready
