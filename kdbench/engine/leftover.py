"""The last batch of an epoch when it holds one row: many a layer cannot train on it, which is said before any epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from kdbench.base.errors import UserError, described
from kdbench.contract import Batch
from kdbench.devices import backends
from kdbench.engine.stage import StageRun


def is_lone(rows: int, batch: int) -> bool:
    """Whether an epoch over so many rows has a batch of one row."""
    batch = min(batch, rows)
    return batch == 1 or rows % batch == 1


def require_trainable(run: StageRun) -> None:
    """Refuses a stage whose epochs end in a batch of one row that its method cannot take, though it takes a whole one.

    Leaves everything as it was: weights, statistics and random states.

    Raises:
        UserError: with what to change.
    """
    if run.loader.smallest > 1 or run.ranks.several:
        return
    last, rows, batch = run.loader.draw(run.loader.steps - 1), len(run.loader.rows.y), run.loader.batch
    error = _failure(run, last)
    if error is None or (batch > 1 and _failure(run, run.loader.draw(0)) is not None):
        return  # what fails on any batch is no fault of this one's
    where = f"{rows} rows in batches of {batch} leave a last batch of 1 row"
    if batch == 1:
        where = "its batches hold 1 row"
    advice = f"the stage chooses its batches: change the number of training rows by one, {rows} now"
    if run.stage.batch is None:
        advice = f"set train.batch={_next_to(batch, rows)}"
    raise UserError(f"stage {run.stage.name!r} cannot be trained: {where}, and {described(error)}; {advice}")


def _next_to(batch: int, rows: int) -> int:
    """The number nearest to a batch's that leaves no batch of one row."""
    near = (batch + sign * step for step in range(1, rows + 2) for sign in (-1, 1))
    return next(size for size in near if size > 1 and not is_lone(rows, size)) if rows > 1 else batch


def _failure(run: StageRun, batch: Batch) -> Exception | None:
    with _as_it_was(run):
        try:
            run.method.train()
            if run.stage.step is not None:
                run.stage.step(lambda: batch, run.at(), _no_update)
            elif run.stage.losses is not None:
                run.stage.losses(batch, run.at())
        except Exception as error:  # whatever its layers raise
            return error
    return None


def _no_update(loss: Tensor, group: str | None = None) -> None:
    """Stands for an update that is not made."""


@contextmanager
def _as_it_was(run: StageRun) -> Iterator[None]:
    state = {name: value.clone() for name, value in run.method.state_dict().items()}
    training = run.method.training
    with backends.random_states_kept():
        try:
            yield
        finally:
            run.method.load_state_dict(state)
            run.method.train(training)
