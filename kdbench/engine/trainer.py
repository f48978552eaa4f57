"""The one training loop: every method, every stage; a killed run goes on from its checkpoint to the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.base import home
from kdbench.base.files import canonical_json, sha256
from kdbench.base.progress import Point, Progress, Work
from kdbench.base.seeds import derive
from kdbench.contract import Method, Stage
from kdbench.engine import checkpoint, leftover
from kdbench.engine.curve import StageCurve, thinned
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Task

DIGEST_STEPS = 20
TELL_SECONDS = 1.0
"""Ends of epochs that follow faster are told together: telling waits for the device."""


class Diverged(Exception):
    """A loss was not finite; the message says in which stage and between which steps."""


@dataclass
class StageReport:
    """What a stage took.

    Attributes:
        seconds: training alone, without evaluation and checkpoints, nor what other runs did in turns with this one.
        rows: labelled rows trained on, views not counted.
    """

    name: str
    ledger: str
    steps: int
    rows: int
    seconds: float
    once: bool


@dataclass
class Trained:
    """What training leaves beside the method's weights; ``told`` counts the points that were told.

    Attributes:
        stored: seconds that went into answers of teachers kept for other runs; they are in no stage's.
    """

    stages: list[StageReport] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    digest: list[float] = field(default_factory=list)
    told: int = 0
    stored: float = 0.0


def digest_sha256(losses: Sequence[float]) -> str:
    """sha256 over the exact values of the first totals."""
    return sha256(canonical_json([value.hex() for value in losses]))


class Trainer:
    """Trains a method through all its stages.

    Args:
        method, task: as prepared.
        folder: where checkpoints go; None trains without. Of several processes the first alone writes them.
        score: test metrics of a network, for the curve; None leaves them out.
        scored: most points of a stage's curve at which it is asked; None for all.
        progress: told of every step.
        tell: told of every point with its number; after a resumption with numbers it may have heard before.
        checkpoint_seconds: time between checkpoints within a stage; 0 means after every step, None as the user says.
    """

    def __init__(
        self,
        method: Method,
        task: Task,
        folder: Path | None = None,
        score: Callable[[nn.Module], dict[str, float]] | None = None,
        progress: Progress | None = None,
        checkpoint_seconds: float | None = None,
        tell: Callable[[int, Point], None] | None = None,
        scored: int | None = None,
    ) -> None:
        self.method, self.task, self.folder, self.score = method, task, folder, score
        self.progress = progress or Progress.silent()
        self.checkpoint_seconds = home.checkpoint_seconds() if checkpoint_seconds is None else checkpoint_seconds
        self.tell, self.scored = tell, scored
        self.done = Trained()
        self.ranks = task.ranks
        task.watch_stages(lambda: self.done.stages)

    def run(self) -> Trained:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            Diverged: a loss was not finite.
        """
        for _ in self.steps():
            pass
        return self.done

    def steps(self) -> Iterator[None]:
        """As :meth:`run`, a step for each ``next``; what it leaves is ``done``.

        Between two of them other trainers may do steps: what they share is the state of the global generators, which is
        the caller's to keep (:class:`kdbench.devices.lanes.Lane`).

        Raises:
            Diverged: a loss was not finite.
        """
        stages = self.method.stages()
        number = 0
        while True:
            # Modules that a method makes between two stages are initialised alike, resumed or not.
            torch.manual_seed(derive(self.task.seed, "stage", number))
            stage = next(stages, None)
            if stage is None:
                return
            self.method.to(self.task.device)
            yield from self._stage(number, stage)
            number += 1

    def _stage(self, number: int, stage: Stage) -> Iterator[None]:
        with closing(StageRun(self.method, stage, self.task)) as run:
            yield from self._steps(number, stage, run)

    def _steps(self, number: int, stage: Stage, run: StageRun) -> Iterator[None]:
        finished = self._load(f"stage-{number}")
        if finished is not None:
            self.method.load_state_dict(finished["method"])
            self._restore(finished)
            return
        self.method.train()
        curve = StageCurve(run, stage, self.scored)
        seconds, begin_step = 0.0, 0
        state = self._load("current")
        if state is not None and state["number"] == number:
            run.load(state)
            self._restore(state)
            seconds, begin_step = state["seconds"], run.step_number
            curve.load(state)
        else:
            leftover.require_trainable(run)
        evaluates = _trains(stage, self.method.deployed) and self.score is not None and self.ranks.first
        digest: list[Tensor] = []
        wanted = DIGEST_STEPS if number == 0 else 0
        with self.progress.stage(stage.name, run.total, begin_step, stage.epochs, run.loader.steps) as work:
            work.read = curve.loss
            self._stored()
            clock = saved = told = time.perf_counter()
            while run.step_number < run.total:
                terms = run.step()
                curve.add(terms)
                if len(self.done.digest) + len(digest) < wanted and "total" in terms:
                    digest.append(terms["total"])
                self.progress.step(work)
                now = time.perf_counter()
                at_point, to_save = curve.at_point, now - saved >= self.checkpoint_seconds
                to_tell = curve.at_epoch and now - told >= TELL_SECONDS
                if curve.at_epoch and not at_point:
                    curve.mark(seconds + now - clock)
                if at_point or to_save or to_tell:
                    self.done.digest += [float(value) for value in digest]  # waits for the device
                    digest = []
                    seconds += time.perf_counter() - clock - self._stored()
                    if (at_point or to_save) and bool(run.bad):
                        raise Diverged(f"a loss of stage {stage.name!r} was not finite by step {run.step_number}")
                    if at_point:
                        self._point(curve, seconds, evaluates)
                    self._tell(work, curve)
                    told = time.perf_counter()
                    if to_save:
                        self._save("current", number, run.state(), seconds, curve)
                        saved = time.perf_counter()
                    clock = time.perf_counter()
                left = time.perf_counter()
                yield
                clock += time.perf_counter() - left  # what went by meanwhile is not this run's
        batch = run.loader.batch if stage.epochs is None else 0
        rows = run.draws * batch if batch else (stage.epochs or 0) * len(run.loader.rows.y)
        self.done.stages.append(StageReport(stage.name, stage.ledger, run.total, rows, seconds, stage.once))
        self._save(f"stage-{number}", number, run.state(), seconds, curve)

    def _stored(self) -> float:
        """Seconds since it was asked last that went into answers of teachers kept for other runs."""
        took = self.task.filling.taken() if self.task.filling is not None else 0.0
        self.done.stored += took
        return took

    def _point(self, curve: StageCurve, seconds: float, evaluates: bool) -> None:
        scores = self.score(self.method.deployed) if evaluates and curve.at_score and self.score is not None else {}
        self.done.curve = thinned([*self.done.curve, curve.point(seconds, scores)])

    def _tell(self, work: Work, curve: StageCurve) -> None:
        """Tells the points that nobody was told of yet."""
        before = sum(report.steps for report in self.done.stages)
        for point in curve.points(before):
            if self.tell is not None:
                self.tell(self.done.told, point)
            self.done.told += 1
            self.progress.point(work, point)

    def _load(self, name: str) -> dict[str, Any] | None:
        """A checkpoint, None without one; of several processes the first looks and the others read what it found."""
        if self.folder is None:
            return None
        path = self.folder / f"{name}.pt"
        state = checkpoint.load(path, self.task.device) if self.ranks.first else None
        there = self.ranks.tell(state is not None)
        return checkpoint.load(path, self.task.device) if there and not self.ranks.first else state

    def _save(self, name: str, number: int, state: dict[str, Any], seconds: float, curve: StageCurve) -> None:
        if self.folder is None or not self.ranks.first:
            return
        facts = {"number": number, "seconds": seconds, "done": asdict(self.done), **curve.state()}
        checkpoint.save(self.folder / f"{name}.pt", {**state, **facts})

    def _restore(self, state: dict[str, Any]) -> None:
        self.done = Trained(**state["done"])
        self.done.stages = [StageReport(**report) for report in state["done"]["stages"]]


def _trains(stage: Stage, net: nn.Module) -> bool:
    own = {id(p) for p in net.parameters()}
    return any(id(p) in own for group in stage.groups for p in group.params)
