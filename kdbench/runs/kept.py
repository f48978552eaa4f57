"""What is kept of how a run went: its log, its curves, and what its trackers are told. No record depends on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import kdbench
from kdbench.base.progress import Point
from kdbench.records.files import Record
from kdbench.runs.earlier import Begun
from kdbench.runs.request import Request
from kdbench.watch.files import Curves, Log
from kdbench.watch.libraries import About
from kdbench.watch.trackers import Tracking, told

LOG, CURVES = "log.txt", "curves.csv"


class Kept:
    """The files of a run in its folder below the home's ``logs``, and its trackers; goes on with those of a killed run.

    Args:
        request: the run.
        begun: its id.

    Attributes:
        progress: the request's, which the log follows as well.

    Raises:
        UserError: a tracker is not known here.
    """

    def __init__(self, request: Request, begun: Begun) -> None:
        folder = request.home.logs / begun.run_id
        self._log, self._curves = Log(folder / LOG), Curves(folder / CURVES)
        self.progress = request.progress.with_view(self._log)
        there = self._curves.rows
        self._tracking = Tracking(request.track, _about(request, begun), there, self.progress.say)
        again = f", goes on; {there} points are here" if there else ""
        where = f"{request.device_class}, kdbench {kdbench.__version__}"
        self._log.said(f"{request.name}: run {begun.run_id} on {where}{again}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracking.close()
        if kind is GeneratorExit:
            self._log.said("stopped with the runs beside it")
        elif kind is not None:
            with contextlib.suppress(OSError):  # a full disk is what may have ended it
                self._log.said(f"stopped: {kind.__name__}: {error}")

    def point(self, number: int, point: Point) -> None:
        """A point of training; its row is the last that is written, so that trackers never know less."""
        self._tracking.point(number, point)
        self._curves.point(number, point)

    def scored(self, metrics: Mapping[str, float], steps: int) -> None:
        """Training is over: trackers end here, so that none runs beside the measurement of cost."""
        self._tracking.end(metrics, steps)

    def ended(self, record: Record) -> None:
        """How the run ended."""
        what = f"{record.task.metric_primary} {record.score:.2f} {record.task.unit}" if record.score is not None else ""
        self._log.said(f"ended: {record.status.replace('_', ' ')}: {record.error.message if record.error else what}")


def _about(request: Request, begun: Begun) -> About:
    config = request.config
    method, task = config.method.ref.name, config.task.name
    facts = {
        "method": method, "task": task, "seed": request.seed, "device_class": request.device_class,
        "smoke": config.smoke, "params": config.method.plain_params(),
        "train": config.task.train.model_dump(mode="json"),
    }  # fmt: skip
    name = f"{method}_{task.replace('/', '-')}_seed{request.seed}_{begun.run_id[:8]}"
    return About(name, begun.run_id, told(facts), request.home.tracked)
