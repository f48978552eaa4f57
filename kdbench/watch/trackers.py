"""The trackers of a run: they never change it, and none of their failures ends it."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kdbench.base.errors import UserError, described, nearest
from kdbench.base.progress import Point
from kdbench.watch.libraries import About, MLflow, TensorBoard, Tracker, Wandb

EXTRA = "track"


@dataclass(frozen=True)
class Library:
    """A tracker, which imports its library when it is made, and the modules it cannot do without.

    ``single``: it follows one run of a process at a time.
    """

    make: Callable[[About], Tracker]
    modules: tuple[str, ...]
    single: bool = False


TRACKERS = {
    "tensorboard": Library(TensorBoard, ("tensorboard",)),
    "wandb": Library(Wandb, ("wandb",), single=True),
    "mlflow": Library(MLflow, ("mlflow", "sqlalchemy", "alembic")),
}


def require(names: Sequence[str]) -> tuple[str, ...]:
    """Names of trackers that are known and installed, each once. Imports none of them.

    Raises:
        UserError: naming the first that is not, and what to do.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track {name!r} is not known{nearest(name, TRACKERS)}; use {', '.join(TRACKERS)}")
        missing = [module for module in TRACKERS[name].modules if importlib.util.find_spec(module) is None]
        if missing:
            raise UserError(
                f"--track {name} needs {' and '.join(missing)}: pip install 'kdbench[{EXTRA}]' brings all trackers"
            )
    return tuple(dict.fromkeys(names))


def one_a_process(names: Sequence[str]) -> str | None:
    """The first of some trackers that follows one run of a process at a time; None where all follow any number."""
    return next((name for name in names if TRACKERS[name].single), None)


class Tracking:
    """The trackers of one run; each begins with the first thing it is told.

    Args:
        names: of trackers.
        about: the run.
        heard: points that they were told of before the run was killed.
        say: takes a warning.
    """

    def __init__(self, names: Sequence[str], about: About, heard: int, say: Callable[[str], None]) -> None:
        self._about, self._heard, self._say = about, heard, say
        self._open: dict[str, Tracker | None] = dict.fromkeys(require(names))

    def point(self, number: int, point: Point) -> None:
        """Tells a point, ``number`` in the run, unless they have heard it."""
        if number < self._heard:
            return
        values = {"loss": point.loss, "lr": point.lr} | ({} if point.epoch is None else {"epoch": point.epoch})
        values |= {f"loss/{name}": value for name, value in point.terms.items()}
        values |= {f"score/{name}": value for name, value in point.scores.items()}
        self._log({f"{point.stage}/{name}": value for name, value in values.items()}, point.run_step)

    def end(self, scores: Mapping[str, float], step: int) -> None:
        """Tells the scores of a run that was trained to its last step."""
        self._log({f"final/{name}": value for name, value in scores.items()}, step)
        self.close(ok=True)

    def close(self, ok: bool = False) -> None:
        """Ends them, if that has not happened."""
        for name, tracker in list(self._open.items()):
            with self._guarded(name):
                del self._open[name]
                if tracker is not None:
                    tracker.close(ok)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name in list(self._open):
            with self._guarded(name):
                tracker = self._open[name] = self._open[name] or TRACKERS[name].make(self._about)
                tracker.log(values, step)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """What a library raises is a line, and the last that it is asked; its random draws are its own."""
        try:
            with undisturbed():
                yield
        except Exception as error:
            self._open.pop(name, None)
            self._say(f"tracking with {name} failed: {described(error)}; the run goes on without it")


@contextmanager
def undisturbed() -> Iterator[None]:
    """The global random states of Python, NumPy and torch are the same after the block as before."""
    import numpy as np
    import torch

    own, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)


def told(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool | None]:
    """Nested facts by dotted names; what is no plain value is told as text."""
    found: dict[str, str | int | float | bool | None] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= told(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, str | int | float | bool)
            found[f"{prefix}{name}"] = value if plain else str(value)
    return found
