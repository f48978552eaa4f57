"""The one training loop: every method, every stage; a killed run goes on from its checkpoint to the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.base import home
from kdbench.base.files import canonical_json, sha256
from kdbench.base.progress import Progress
from kdbench.base.seeds import derive
from kdbench.contract import Method, Stage
from kdbench.engine import checkpoint, leftover
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Task

CURVE_POINTS = 60
DIGEST_STEPS = 20


class Diverged(Exception):
    """A loss was not finite; the message says in which stage and between which steps."""


@dataclass
class StageReport:
    """What a stage took.

    Attributes:
        seconds: training alone, without evaluation and checkpoints.
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
    """What training leaves beside the method's weights."""

    stages: list[StageReport] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    digest: list[float] = field(default_factory=list)


def digest_sha256(losses: Sequence[float]) -> str:
    """sha256 over the exact values of the first totals."""
    return sha256(canonical_json([value.hex() for value in losses]))


class Trainer:
    """Trains a method through all its stages.

    Args:
        method, task: as prepared.
        folder: where checkpoints go; None trains without. Of several processes the first alone writes them.
        score: test metrics of a network, for the curve; None leaves them out.
        progress: told of every step.
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
    ) -> None:
        self.method, self.task, self.folder, self.score = method, task, folder, score
        self.progress = progress or Progress.silent()
        self.checkpoint_seconds = home.checkpoint_seconds() if checkpoint_seconds is None else checkpoint_seconds
        self.done = Trained()
        self.ranks = task.ranks
        task.watch_stages(lambda: self.done.stages)

    def run(self) -> Trained:
        """Train to the end, from the last checkpoint if there is one.

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
                return self.done
            self.method.to(self.task.device)
            self._stage(number, stage)
            number += 1

    def _stage(self, number: int, stage: Stage) -> None:
        run = StageRun(self.method, stage, self.task)
        finished = self._load(f"stage-{number}")
        if finished is not None:
            self.method.load_state_dict(finished["method"])
            self._restore(finished)
            return
        self.method.train()
        sums = _Sums()
        seconds, begin_step = 0.0, 0
        state = self._load("current")
        if state is not None and state["number"] == number:
            run.load(state)
            self._restore(state)
            seconds, begin_step = state["seconds"], run.step_number
            sums = _Sums(state["sums"], state["count"])
        else:
            leftover.require_trainable(run)
        points = _points(run.total, stage.epochs)
        evaluates = _trains(stage, self.method.deployed) and self.score is not None and self.ranks.first
        digest: list[Tensor] = []
        wanted = DIGEST_STEPS if number == 0 else 0
        clock = saved = time.perf_counter()
        with self.progress.bar(stage.name, run.total, begin_step) as advance:
            while run.step_number < run.total:
                terms = run.step()
                sums.add(terms)
                if len(self.done.digest) + len(digest) < wanted and "total" in terms:
                    digest.append(terms["total"])
                advance()
                at_point = run.step_number in points
                if at_point or time.perf_counter() - saved >= self.checkpoint_seconds:
                    self.done.digest += [float(value) for value in digest]  # waits for the device
                    digest = []
                    seconds += time.perf_counter() - clock
                    if bool(run.bad):
                        raise Diverged(f"a loss of stage {stage.name!r} was not finite by step {run.step_number}")
                    if at_point:
                        self._point(run, stage, sums, seconds, evaluates)
                        sums = _Sums()
                    if time.perf_counter() - saved >= self.checkpoint_seconds:
                        self._save("current", number, run.state(), seconds, sums)
                        saved = time.perf_counter()
                    clock = time.perf_counter()
        batch = run.loader.batch if stage.epochs is None else 0
        rows = run.draws * batch if batch else (stage.epochs or 0) * len(run.loader.rows.y)
        self.done.stages.append(StageReport(stage.name, stage.ledger, run.total, rows, seconds, stage.once))
        self._save(f"stage-{number}", number, run.state(), seconds, sums)

    def _point(self, run: StageRun, stage: Stage, sums: _Sums, seconds: float, evaluates: bool) -> None:
        losses = sums.means()
        total = losses.pop("total", None)
        self.done.curve.append(
            {
                "stage": stage.name,
                "epoch": run.step_number // run.loader.steps if stage.epochs else 0,
                "step": run.step_number,
                "train_loss": sum(losses.values()) if total is None else total,
                "losses": losses,
                "val": self.score(self.method.deployed) if evaluates and self.score is not None else {},
                "lr": run.learning_rate(),
                "elapsed_s": seconds,
            }
        )
        if len(self.done.curve) > CURVE_POINTS:  # keep every second one, the last among them
            self.done.curve = self.done.curve[::-1][::2][::-1]

    def _load(self, name: str) -> dict[str, Any] | None:
        """A checkpoint, None without one; of several processes the first looks and the others read what it found."""
        if self.folder is None:
            return None
        path = self.folder / f"{name}.pt"
        state = checkpoint.load(path, self.task.device) if self.ranks.first else None
        there = self.ranks.tell(state is not None)
        return checkpoint.load(path, self.task.device) if there and not self.ranks.first else state

    def _save(self, name: str, number: int, state: dict[str, Any], seconds: float, sums: _Sums) -> None:
        if self.folder is None or not self.ranks.first:
            return
        done = asdict(self.done)
        facts = {"number": number, "seconds": seconds, "done": done, "sums": sums.sums, "count": sums.count}
        checkpoint.save(self.folder / f"{name}.pt", {**state, **facts})

    def _restore(self, state: dict[str, Any]) -> None:
        done = state["done"]
        self.done = Trained([StageReport(**s) for s in done["stages"]], done["curve"], done["digest"])


class _Sums:
    """Running sums of the loss terms, on the device."""

    def __init__(self, sums: dict[str, Tensor] | None = None, count: int = 0) -> None:
        self.sums, self.count = dict(sums or {}), count

    def add(self, terms: dict[str, Tensor]) -> None:
        self.count += 1
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def means(self) -> dict[str, float]:
        return {name: float(value) / max(1, self.count) for name, value in self.sums.items()}


def _points(total: int, epochs: int | None) -> set[int]:
    """Steps after which a curve point is taken: ends of epochs, evenly spread, the last step always among them."""
    units = epochs or min(total, CURVE_POINTS // 3)
    count = min(units, CURVE_POINTS * 2 // 3)
    return {round(total * (round(units * (i + 1) / count) / units)) for i in range(count)} if total else set()


def _trains(stage: Stage, net: nn.Module) -> bool:
    own = {id(p) for p in net.parameters()}
    return any(id(p) in own for group in stage.groups for p in group.params)
