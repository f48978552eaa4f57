"""The curve of a stage: its loss terms, summed on the device and read only where the trainer waits anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from kdbench.base.progress import Point
from kdbench.contract import Stage
from kdbench.engine.stage import StageRun

CURVE_POINTS = 60
"""Most points of a record's curve."""


@dataclass
class _Sums:
    """Running sums of the loss terms, on the device; none is changed in place, so that a copy keeps them."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        self.count += 1
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term

    def copy(self) -> _Sums:
        return _Sums(dict(self.sums), self.count)

    def means(self, since: _Sums | None = None) -> tuple[float, dict[str, float]]:
        """Means of the total and of each term, over all or since an earlier state of the sums; waits for the device."""
        before = since or _Sums()
        found = {
            name: (float(value) - float(before.sums.get(name, 0.0))) / max(1, self.count - before.count)
            for name, value in self.sums.items()
        }
        total = found.pop("total", None)
        return sum(found.values()) if total is None else total, found


@dataclass
class _Mark:
    """The end of an epoch, not read yet."""

    step: int
    seconds: float
    lr: float
    sums: _Sums
    scores: Mapping[str, float] = field(default_factory=dict)


class StageCurve:
    """What is kept of a stage's losses: the points of the record's curve, and the end of each epoch.

    Args:
        run: the stage under way; stage: as its method yielded it.
        scored: most points of the record's curve that have a score; None for all.
    """

    def __init__(self, run: StageRun, stage: Stage, scored: int | None = None) -> None:
        self._run, self._stage = run, stage
        self._at = _points(run.total, stage.epochs)
        self._scored = _some(sorted(self._at), scored)
        self._sums = _Sums()
        self._since = _Sums()
        """The sums at the end of the last epoch."""
        self._marks: list[_Mark] = []

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """The terms of a step that was done."""
        self._sums.add(terms)

    @property
    def at_point(self) -> bool:
        """Whether the record's curve has a point here."""
        return self._run.step_number in self._at

    @property
    def at_score(self) -> bool:
        """Whether the point here has a score."""
        return self._run.step_number in self._scored

    @property
    def at_epoch(self) -> bool:
        """Whether an epoch ends here; of a stage without epochs, whether a point is here."""
        if self._stage.epochs is None:
            return self.at_point
        return self._run.step_number % self._run.loader.steps == 0

    def loss(self) -> float:
        """Mean of the total since the last epoch that was read; waits for the device."""
        since = self._since if self._sums.count > self._since.count else None
        return self._sums.means(since)[0]

    def mark(self, seconds: float, scores: Mapping[str, float] | None = None) -> None:
        """Keeps the end of an epoch, read by :meth:`points`; the host does not wait."""
        run, sums = self._run, self._sums.copy()
        self._marks.append(_Mark(run.step_number, seconds, run.learning_rate(), sums, scores or {}))

    def point(self, seconds: float, scores: dict[str, float]) -> dict[str, Any]:
        """A point of the record's curve, over the steps since the last one; waits for the device."""
        run = self._run
        total, losses = self._sums.means()
        self.mark(seconds, scores)
        self._sums = _Sums()
        return {
            "stage": self._stage.name,
            "epoch": run.step_number // run.loader.steps if self._stage.epochs else 0,
            "step": run.step_number,
            "train_loss": total,
            "losses": losses,
            "val": scores,
            "lr": run.learning_rate(),
            "elapsed_s": seconds,
        }

    def points(self, before: int) -> list[Point]:
        """The ends of epochs since this was asked last; waits for the device.

        Args:
            before: steps of the stages before this one.
        """
        found, stage = [], self._stage
        for mark in self._marks:
            loss, terms = mark.sums.means(self._since)
            epoch = mark.step // self._run.loader.steps if stage.epochs else None
            found.append(
                Point(
                    stage.name, epoch, stage.epochs, mark.step, before + mark.step, mark.seconds, mark.lr, loss, terms,
                    mark.scores,
                )
            )  # fmt: skip
            self._since = _Sums() if mark.step in self._at else mark.sums
        self._marks = []
        return found

    def state(self) -> dict[str, Any]:
        """For a checkpoint, all points read."""
        since = {"sums": self._since.sums, "count": self._since.count}
        return {"sums": self._sums.sums, "count": self._sums.count, "epoch": since}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`."""
        self._sums = _Sums(dict(state["sums"]), state["count"])
        since = state.get("epoch", {"sums": {}, "count": 0})  # no checkpoint of before holds it
        self._since = _Sums(dict(since["sums"]), since["count"])


def thinned(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record's curve; one that has grown too long keeps every second point, the last among them."""
    return curve[::-1][::2][::-1] if len(curve) > CURVE_POINTS else curve


def _some(points: Sequence[int], most: int | None) -> set[int]:
    """So many of the points, evenly spread, the last among them; all where there are no more."""
    if most is None or most >= len(points):
        return set(points)
    return {points[one - 1] for one in _evenly(len(points), most)}


def _points(total: int, epochs: int | None) -> set[int]:
    """Steps after which a curve point is taken: ends of epochs, evenly spread, the last step always among them."""
    units = epochs or min(total, CURVE_POINTS // 3)
    count = min(units, CURVE_POINTS * 2 // 3)
    return {round(total * (one / units)) for one in _evenly(units, count)} if total else set()


def _evenly(of: int, count: int) -> list[int]:
    """So many of the numbers from 1 to ``of``, evenly spread, the last among them."""
    return [round(of * (i + 1) / count) for i in range(count)]
