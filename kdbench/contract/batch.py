"""Rows as a method reads them: raw, as a batch, and where training stands when it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Rows of a data set as the networks see them.

    Attributes:
        x: input name to tensor of N*V rows, view-major (all rows of view 0 first).
        y: (N*V,) labels, or scaled regression targets; of other kinds of task :class:`Targets` of N*V rows,
            such as :class:`Objects`.
        index: (N*V,) row numbers in the training set, for memory banks; of sentences those of predictions.
        views: V.
        present: input name to (N*V,) bool, for inputs some rows lack; an input not named here is always present.
        counts: (N,) of sentences, how many predictions each makes; None where each row makes one. ``y`` and ``index``
            are then those of the predictions, sentence after sentence, M in all, and so is what networks answer.
        visible: (N*V, 1, h, w) bool, which patches of a picture are seen where the task hides some (:class:`Hide`), of
            every row as many; None where whole pictures are seen.
        seen: how many of a picture's patches that are, of ``visible``; None beside None.
        handed: in ``after_step``, what the losses of the step handed over (:class:`Terms`); None before, or if nothing.
    """

    x: Mapping[str, Tensor]
    y: Any
    index: Tensor
    views: int = 1
    present: Mapping[str, Tensor] = field(default_factory=dict)
    handed: Any = None
    counts: Tensor | None = None
    visible: Tensor | None = None
    seen: int | None = None

    def __len__(self) -> int:
        """Predictions: N*V, of sentences M."""
        return len(self.index)

    @property
    def rows(self) -> int:
        """Rows of the data set, each counted once."""
        return len(self.index) // self.views if self.counts is None else len(self.counts)

    def unview(self, rows: Tensor) -> Tensor:
        """(N*V, ...) to (V, N, ...)."""
        return rows.unflatten(0, (self.views, rows.shape[0] // self.views))

    def view(self, v: int) -> Batch:
        """The N rows of view ``v`` as a batch of one view."""
        if self.counts is not None:
            return self  # sentences have one view
        rows = len(self) // self.views
        part = slice(v * rows, (v + 1) * rows)
        return Batch(
            {name: t[part] for name, t in self.x.items()},
            self.y[part],
            self.index[part],
            1,
            {name: t[part] for name, t in self.present.items()},
            visible=None if self.visible is None else self.visible[part],
            seen=self.seen,
        )


class Rows(NamedTuple):
    """Raw rows: what a data source holds before augmentation and normalisation.

    Attributes:
        x: input name to (N, ...) tensor; images are uint8 (N, C, H, W), other inputs float32.
        y: (N,) int64 labels or float32 targets, or :class:`Targets`; what a method sees of targets is always scaled,
            as in a batch.
    """

    x: Mapping[str, Tensor]
    y: Any


class At(NamedTuple):
    """Where training stands.

    Attributes:
        step: optimiser steps of this stage already done.
        epoch: epochs of this stage already done, counted from 0.
        epochs: epochs of this stage (0 for a stage counted in steps).
        t: fraction of this stage already done, in [0, 1).
        rng: generator on the training device, seeded by (run seed, stage, step).
    """

    step: int
    epoch: int
    epochs: int
    t: float
    rng: torch.Generator

    def by_epoch(self, number: Callable[[int], float]) -> float | Tensor:
        """A number that follows from the epoch alone, as the weight of a term that rises does.

        Where steps are replayed without Python it is a 0-d tensor that holds the number of the epoch at hand; a number
        computed from ``epoch`` would be frozen, and such a step is captured anew in every epoch.

        Args:
            number: of the epochs already done.
        """
        return number(self.epoch)
