"""A data set in memory: raw rows of a fixed training and test part, with the hashes that identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kdbench.contract import Rows
from kdbench.errors import UserError
from kdbench.seeds import derive
from kdbench.spec import Subset


@dataclass(frozen=True)
class Transform:
    """How an input's raw values become network input: uint8 is divided by 255, then (x - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw (N, C, ...) to normalised float32."""
        x = raw.float().div_(255) if raw.dtype is torch.uint8 else raw.float()
        shape = (1, -1, *([1] * (x.ndim - 2)))
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(shape) for v in (self.mean, self.std))
        return (x - mean) / std


@dataclass(frozen=True)
class Dataset:
    """Raw rows and facts of a data source.

    Attributes:
        train, test: raw rows; targets of a regression are in the task's own unit.
        classes: number of classes, 1 for a regression.
        transforms: input name to its normalisation.
        label_range: (min, max) of regression targets, None for classes.
        properties: what methods may rely on, e.g. ``rgb``, ``rotation_safe``.
        source: where the rows came from, for the record.
        drawn: sha256 of the training rows a subset drew, None without one.
    """

    name: str
    train: Rows
    test: Rows
    classes: int
    transforms: Mapping[str, Transform]
    label_range: tuple[float, float] | None = None
    properties: frozenset[str] = frozenset()
    source: str = ""
    drawn: str | None = None

    def digest(self, part: str) -> str:
        """sha256 over the content of ``train`` or ``test``: names, shapes, types and values."""
        rows: Rows = getattr(self, part)
        digest = hashlib.sha256()
        for name, tensor in sorted({**rows.x, "y": rows.y}.items()):
            digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
        return digest.hexdigest()

    def subset(self, rule: Subset | None, seed: int) -> Dataset:
        """The training rows a subset rule draws, stratified by class.

        Raises:
            UserError: a class has fewer rows than asked for, or the task has no classes.
        """
        if rule is None:
            return self
        if self.label_range is not None:
            raise UserError(f"data.subset: {self.name} has no classes to draw from; remove data.subset")
        generator = np.random.default_rng(derive(seed if rule.seed is None else rule.seed, "subset"))
        labels = self.train.y.cpu().numpy()
        chosen = []
        for label in range(self.classes):
            rows = np.flatnonzero(labels == label)
            count = rule.per_class if rule.per_class is not None else round((rule.fraction or 0) * len(rows))
            if not 0 < count <= len(rows):
                raise UserError(
                    f"data.subset: class {label} of {self.name} has {len(rows)} rows, {count} are asked for"
                )
            chosen.append(generator.permutation(rows)[:count])
        index = np.sort(np.concatenate(chosen))
        return replace(
            self,
            train=take(self.train, torch.from_numpy(index)),
            drawn=hashlib.sha256(index.astype("<i8").tobytes()).hexdigest(),
        )

    def head(self, rows: int) -> Dataset:
        """The first ``rows`` training and test rows, for a smoke run."""
        return replace(
            self,
            train=Rows({k: v[:rows] for k, v in self.train.x.items()}, self.train.y[:rows]),
            test=Rows({k: v[:rows] for k, v in self.test.x.items()}, self.test.y[:rows]),
        )


def take(rows: Rows, index: Tensor) -> Rows:
    """Rows by number."""
    return Rows({name: tensor[index] for name, tensor in rows.x.items()}, rows.y[index])
