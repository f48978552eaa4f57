"""The device-resident loader: raw rows live on the training device and are augmented there, a whole batch at once.

Which rows a batch holds and how they are augmented depends on (seed, stage, draw number) alone, so a run that resumes
at any draw sees the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdbench.contract import Batch, Rows, Views
from kdbench.data.augment import augments
from kdbench.data.dataset import Transform, take
from kdbench.seeds import generator


class Loader:
    """Batches of a training stage.

    Args:
        rows: raw training rows on the device; regression targets already scaled.
        transforms: normalisation of each input.
        augment: augmentation names, applied to every input of image shape alike.
        batch: rows of a batch.
        seed: the run's seed.
        stage: name of the stage, part of the stream's name.
        views: several views of each row, or None.
        drop_below: a last partial batch of fewer rows is left out.
    """

    def __init__(
        self,
        rows: Rows,
        transforms: Mapping[str, Transform],
        augment: Sequence[str],
        batch: int,
        seed: int,
        stage: str,
        views: Views | None = None,
        drop_below: int = 1,
    ) -> None:
        self.rows = rows
        self.transforms = transforms
        self.views = views
        self.batch = min(batch, len(rows.y))
        self.seed, self.stage = seed, stage
        self.device = rows.y.device
        replaced = views.replaces if views is not None else ()
        self.augment = [fn for name, fn in augments(augment) if name not in replaced]
        rest = len(rows.y) % self.batch
        self.steps = len(rows.y) // self.batch + (1 if rest and rest >= drop_below else 0)
        self._order: tuple[int, Tensor] | None = None
        # Rows that no augmentation touches are normalised once instead of at every draw.
        self._static = {
            name: transforms[name](x)
            for name, x in rows.x.items()
            if not (self._is_image(x) and (self.augment or (views is not None and views.input == name)))
        }

    @staticmethod
    def _is_image(x: Tensor) -> bool:
        return x.dtype is torch.uint8 and x.ndim == 4

    def _epoch_order(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            rng = generator("cpu", self.seed, "order", self.stage, epoch)
            self._order = (epoch, torch.randperm(len(self.rows.y), generator=rng).to(self.device))
        return self._order[1]

    def draw(self, number: int) -> Batch:
        """Batch ``number`` of the stage, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.steps)
        index = self._epoch_order(epoch)[place * self.batch : (place + 1) * self.batch]
        n_views = self.views.n if self.views is not None else 1
        rng = generator(self.device, self.seed, "augment", self.stage, number)
        x = {}
        for name, raw in self.rows.x.items():
            if name in self._static:
                once = self._static[name][index]
                x[name] = once if n_views == 1 else once.repeat(n_views, *[1] * (once.ndim - 1))
            else:
                x[name] = self._pixels(name, raw[index], rng)
        y = self.rows.y[index]
        return Batch(x, y.repeat(n_views), index.repeat(n_views), n_views)

    def _pixels(self, name: str, raw: Tensor, rng: torch.Generator) -> Tensor:
        views = self.views if self.views is not None and self.views.input == name else None
        if views is not None and views.where == "raw":
            raw = views.fn(raw, rng).flatten(0, 1)
        elif self.views is not None and views is None:
            raw = raw.repeat(self.views.n, 1, 1, 1)
        for fn in self.augment:
            raw = fn(raw, rng)
        x = self.transforms[name](raw)
        if views is not None and views.where == "final":
            x = views.fn(x, rng).flatten(0, 1)
        return x


def in_order(rows: Rows, transforms: Mapping[str, Transform], batch: int = 1000) -> list[Batch]:
    """Rows in order, normalised, not augmented."""
    parts = torch.arange(len(rows.y), device=rows.y.device).split(batch)
    batches = []
    for index in parts:
        part = take(rows, index)
        batches.append(Batch({name: transforms[name](x) for name, x in part.x.items()}, part.y, index))
    return batches
