"""Whole runs of methods on tiny tasks with augmentations, and what they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tinies import tiny_of

from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.tiny import Tiny
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.trainer import Trained, Trainer
from kdbench.specs.options import EAGER, EngineOptions

EPOCHS, ROWS, LAST = 3, 60, 12
"""Of a tiny task; its batches hold 16 rows, the last of an epoch 12."""
AUGMENTED = ("crop1", "flip")

Told = list[str]


def place(folder: Path, home: Path, said: Told | None = None) -> RunPlace:
    """Where a run is made; ``said`` gets the lines that its user would read."""
    progress = Progress.silent()
    if said is not None:
        progress.say = said.append  # type: ignore[method-assign]
    return RunPlace(torch.device("cpu"), Home(home), None, folder, progress)


def task(method: str, options: EngineOptions = EAGER, augment: Sequence[str] = ()) -> Tiny:
    """A method's tiny task, as long and augmented as said."""
    return lengthened(tiny_of(method, options), augment)


def lengthened(tiny: Tiny, augment: Sequence[str] = ()) -> Tiny:
    """A tiny task of ``EPOCHS`` epochs."""
    spec = tiny.config.task
    data = spec.data.model_copy(update={"augment": list(augment)})
    train = spec.train.model_copy(update={"epochs": EPOCHS})
    return replace(tiny, config=replace(tiny.config, task=spec.model_copy(update={"data": data, "train": train})))


def prepared(of: Tiny, folder: Path, home: Path, seed: int = 0, said: Told | None = None) -> Prepared:
    """A run before its first step."""
    return prepare(of.config, seed, place(folder, home, said), of.data, of.copies())


def trained(of: Tiny, folder: Path, home: Path, seed: int = 0, said: Told | None = None) -> tuple[Prepared, Trained]:
    """A whole run."""
    made = prepared(of, folder, home, seed, said)
    return made, Trainer(made.method, made.task, folder).run()


def same(one: tuple[Prepared, Trained], other: tuple[Prepared, Trained]) -> bool:
    """Whether two runs have the same losses and weights, bit for bit."""
    states = [prepared.method.state_dict() for prepared, _ in (one, other)]
    return one[1].digest == other[1].digest and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )
