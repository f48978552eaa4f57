"""One small protocol, and TensorBoard, Weights & Biases and MLflow behind it, each through its own library.

Where they write and to whom is theirs to say, by their own environment variables (``WANDB_MODE``,
``MLFLOW_TRACKING_URI`` and so on); without any they write into the home folder, and Weights & Biases sends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "kdbench"


@dataclass(frozen=True)
class About:
    """The run that is tracked.

    Attributes:
        name: for people; ``key`` is its run id, the same when a killed run goes on.
        facts: method, task, seed, hyper-parameters and the like, by dotted names.
        folder: of the home, for what trackers keep on disk.
    """

    name: str
    key: str
    facts: Mapping[str, str | int | float | bool | None]
    folder: Path


class Tracker(Protocol):
    """What a library is told of one run; made with its :class:`About`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values by name, after so many optimiser steps of the run."""
        ...

    def close(self, ok: bool) -> None:
        """The run has ended, well or not."""
        ...


class TensorBoard:
    """Scalars in an event file of the run's own folder, by torch's writer."""

    def __init__(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(about.folder / "tensorboard" / about.name))
        self._writer.add_text("run", "\n".join(f"    {name}: {value}" for name, value in about.facts.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, ok: bool) -> None:
        self._writer.close()


class Wandb:
    """A run of ``WANDB_PROJECT``, or of the project ``kdbench``; ``WANDB_MODE=offline`` keeps it on disk."""

    def __init__(self, about: About) -> None:
        import wandb

        own = about.folder / "wandb"
        own.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=about.name, id=about.key, resume="allow",
            dir=os.environ.get("WANDB_DIR", str(own)), config=dict(about.facts),
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class MLflow:
    """A run of ``MLFLOW_EXPERIMENT_NAME``, or of the experiment ``kdbench``; in a SQLite file unless told otherwise."""

    def __init__(self, about: About) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell of each table they make
            logging.getLogger(name).setLevel(logging.WARNING)
        own = about.folder / "mlflow"
        own.mkdir(parents=True, exist_ok=True)
        self._client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{own / 'mlflow.db'}"))
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        within = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        tag = "kdbench.run"
        runs = self._client.search_runs([within], f"tags.`{tag}` = '{about.key}'")
        if runs:  # a killed run that goes on
            self._id = runs[0].info.run_id
            return
        self._id = self._client.create_run(within, tags={tag: about.key}, run_name=about.name).info.run_id
        self._client.log_batch(self._id, params=[Param(name, str(value)) for name, value in about.facts.items()])

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self, ok: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if ok else "FAILED")
