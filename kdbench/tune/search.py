"""The trials of one method on one task: runs on validation rows, and what they gave, kept as a file of the home."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from kdbench import ENGINE_VERSION, __version__, kinds
from kdbench.base.errors import UserError
from kdbench.index import home as index
from kdbench.records import files as records
from kdbench.runs.evaluate import ingest
from kdbench.specs import registry, tuned
from kdbench.specs.config import run_config
from kdbench.specs.data import Subset
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import Sampler, Searched, TaskSearched, TrialKept, TunedEntry
from kdbench.sweep.devices import Where
from kdbench.sweep.known import Known
from kdbench.sweep.plan import Asked, Change, inapplicable
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Sweep
from kdbench.tune.points import Points, words
from kdbench.tune.space import Dimension, of_teachers, space

TRIALS = 8
INAPPLICABLE = "not applicable"
"""How the reason of a method that does not apply begins; one that only some values rule out has other trials."""
ROWS = ("tuning.", "tuning=", "data.validation")
"""What overrides of those rows begin with."""
FIFTH = Subset(fraction=0.2, seed=0)
"""The training rows that are scored where a task does not say which."""


@dataclass(frozen=True)
class Trial:
    """Values, and what they scored.

    Attributes:
        values: of the searched settings, by their keys; the first trial's are the given ones.
        overrides: what sets them: none for the first trial.
        scores: seed to score on the validation rows; seeds whose run failed are not in it.
        run_ids: of its runs with a score.
        hours: of this trial's training on its device.
    """

    values: dict[str, Any]
    overrides: dict[str, Any]
    scores: dict[int, float]
    run_ids: tuple[str, ...]
    hours: float

    def mean(self, seeds: int) -> float | None:
        """Mean score; None unless every one of so many seeds has one."""
        return fmean(self.scores.values()) if len(self.scores) == seeds else None


@dataclass
class Search:
    """Trials of a method on a task.

    Args:
        asked: home, data, seeds and overrides of all trials; its methods and tasks are not read.
        method, task: by name.
        trials: how many, the given values among them.
        sampler: how values are chosen.
        where: the devices, and the launcher.
        say: told of each trial.

    Attributes:
        done: the trials that have ended; ``device_class``: where they ran.
    """

    asked: Asked
    method: str
    task: str
    trials: int
    sampler: Sampler
    where: Where
    say: Callable[[str], None] = print
    progress: SweepProgress = field(default_factory=SweepProgress.stderr)
    done: list[Trial] = field(default_factory=list)
    device_class: str | None = None

    @property
    def spec(self) -> TaskSpec:
        """The task."""
        return registry.task(self.task)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every trial."""
        return self.asked.seeds or tuned.SEEDS

    @property
    def ruleset(self) -> str:
        """What results with its values are compared under."""
        return tuned.ruleset_of(self.trials, len(self.seeds), self.sampler)

    @property
    def inapplicable(self) -> str | None:
        """Why the method cannot run on the task, None when it can."""
        return inapplicable(registry.method(self.method), self.spec)

    def dimensions(self) -> list[Dimension]:
        """What is searched."""
        return space(run_config(self.method, self.task, self.asked.overrides))

    def hours(self, known: Known | None = None) -> float | None:
        """About how long all trials take, those that are recorded too; None where nothing tells.

        Args:
            known: what the home's index tells, read anew when None.
        """
        one = (known or self.known()).hours_of(self.method, self.task)
        changed = tuned.self_made(self.asked.overrides)  # another length, and nobody ran it
        return None if one is None or changed else one * len(self.seeds) * self.trials

    def known(self) -> Known:
        """What the home's index tells."""
        return self._sweep([]).known()

    def require(self) -> None:
        """Whether the search can be made.

        Raises:
            UserError: the method does not apply, there is nothing to search, the seeds are those of the task's results,
                or overrides name rows.
        """
        if self.inapplicable is not None:
            raise UserError(f"{self.method} on {self.task}: {INAPPLICABLE}: {self.inapplicable}")
        for word in self.asked.overrides:
            if word.startswith(ROWS):
                raise UserError(
                    f"override {word!r}: which rows a search scores stands in the task's file (tuning); write it into "
                    "one of yours, and name that with --task"
                )
        if registry.method(self.method).match is not None:
            raise UserError(f"{self.method}: it takes its length from results as published; nothing is searched")
        if both := sorted({*self.seeds} & {*self.spec.seeds}):
            raise UserError(
                f"--seeds: {', '.join(map(str, both))} are seeds of the results of {self.task}; search with others, "
                f"such as {tuned.SEEDS[0]}"
            )

    def run(self) -> Trial:
        """All trials; those that have records are read. The best.

        Raises:
            UserError: the seeds are those of the task's results, or no trial gave a score.
        """
        self.require()
        higher = self.spec.score.higher_is_better
        points = Points(self.dimensions(), self.sampler, higher)
        fixed, reason = of_teachers(run_config(self.method, self.task, self.asked.overrides)), ""
        while left := self.trials - len(self.done):
            sets = [points.next() for _ in range(left if points.independent else 1)]
            changed = [values | fixed if self.done or place else {} for place, values in enumerate(sets)]
            trials, reason = self._tried(changed, sets)
            for trial in trials:
                self.done.append(trial)
                score = trial.mean(len(self.seeds))
                points.tell(score)
                said = "no score" if score is None else f"{score:.2f} {self.spec.score.unit}".strip()
                self.say(f"{self._called(len(self.done))}, {self.method} on {self.task}: {said}")
            if self.best() is None and len(self.done) == len(trials) and reason.startswith(INAPPLICABLE):
                raise UserError(f"{self.method} on {self.task}: {reason}")
        best = self.best()
        if best is None:
            raise UserError(f"{self.method} on {self.task}: none of {self.trials} trials gave a score; {reason}")
        tuned.keep(self.entry(), self.asked.home)
        return best

    def best(self) -> Trial | None:
        """The trial of the best mean score, the earliest of equal ones."""
        sign = 1 if self.spec.score.higher_is_better else -1
        scored = [trial for trial in self.done if trial.mean(len(self.seeds)) is not None]
        return max(scored, key=lambda trial: sign * (trial.mean(len(self.seeds)) or 0.0), default=None)

    @property
    def file(self) -> Path:
        """What is kept of the search."""
        return self.asked.home.tuned / self.entry().place

    def entry(self) -> TunedEntry:
        """The search as it is kept, once a trial has a score."""
        best = self.best()
        assert best is not None
        n, config = len(self.seeds), run_config(self.method, self.task, self.asked.overrides)
        return TunedEntry(
            method=self.method,
            task=TaskSearched(name=self.task, version=self.spec.version),
            cards=tuned.cards_of(config),
            engine_version=ENGINE_VERSION,
            kdbench_version=__version__,
            validation=self._rule().model_dump(mode="json", exclude_none=True),
            overrides=self.asked.overrides,
            smoke=self.asked.smoke,
            metric=self.spec.score.primary,
            unit=kinds.metrics()[self.spec.score.primary].unit or self.spec.score.unit,
            higher_is_better=self.spec.score.higher_is_better,
            sampler=self.sampler,
            seeds=self.seeds,
            searched={one.key: _searched(one) for one in self.dimensions()},
            trials=tuple(
                TrialKept(
                    values=trial.values, score=trial.mean(n), run_ids=trial.run_ids, hours=trial.hours,
                    scores={str(seed): score for seed, score in trial.scores.items()},
                )
                for trial in self.done
            ),
            best=self.done.index(best),
            values=best.overrides,
            hours=math.fsum(trial.hours for trial in self.done),
            device_class=self.device_class,
            at=records.now(),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The same as JSON data, with the ruleset that its values make."""
        entry = self.entry()
        return {**entry.model_dump(mode="json"), "ruleset": entry.ruleset}

    def _rule(self) -> Subset:
        rule = self.spec.tuning or FIFTH
        return rule if rule.seed is not None else rule.model_copy(update={"seed": 0})

    def _called(self, number: int) -> str:
        return f"trial {number}/{self.trials}"

    @property
    def _overrides(self) -> tuple[str, ...]:
        """Of all trials: those asked for, and the rows that are scored."""
        rule = {f"data.validation.{key}": value for key, value in self._rule().model_dump(exclude_none=True).items()}
        return (*self.asked.overrides, *words(rule))

    def _sweep(self, changes: Sequence[Change]) -> Sweep:
        asked = replace(
            self.asked, methods=(self.method,), tasks=(self.task,), overrides=self._overrides, changes=tuple(changes),
            seeds=self.seeds, overhead="off",
        )  # fmt: skip
        return Sweep(asked, self.where, self.progress)

    def _tried(self, changed: Sequence[dict[str, Any]], sets: Sequence[dict[str, Any]]) -> tuple[list[Trial], str]:
        """Trials of these sets of values, and why the first without a score has none, where there is one."""
        first = len(self.done) + 1
        changes = [Change(words(one), self._called(first + place)) for place, one in enumerate(changed)]
        outcome = self._sweep(changes).run()
        if self.asked.home.records.is_dir():  # not where every run was refused
            ingest(self.asked.home)
        trials, without = [], []
        for change, one, values in zip(changes, changed, sets, strict=True):
            mine = self._rows((*self._overrides, *change.overrides))
            scored = {row["seed"]: row for row in mine if row["status"] == "ok"}
            without += [row for row in mine if row["status"] != "ok" and row["seed"] not in scored]
            self.device_class = next((row["device_class"] for row in scored.values()), self.device_class)
            scores = {seed: row["score"] for seed, row in sorted(scored.items())}
            ids = tuple(row["run_id"] for _, row in sorted(scored.items()))
            trials.append(Trial(values, one, scores, ids, math.fsum(self._hours(ids))))
        reasons = [_reason(row) for row in without] + list(outcome.refused.values())
        return trials, next(iter(reasons), "its runs left no record")

    def _rows(self, overrides: Sequence[str]) -> list[dict[str, Any]]:
        """What the index has of runs with these overrides, of this search's seeds and devices."""
        if not self.asked.home.records.is_dir():
            return []
        wanted = run_config(self.method, self.task, overrides, smoke=self.asked.smoke).spec_hash
        rows = index.use(self.asked.home, lambda store: store.runs(spec_hash=wanted))
        return [row for row in rows if row["seed"] in self.seeds and self.where.belongs(row["device_class"])]

    def _hours(self, run_ids: Sequence[str]) -> list[float]:
        if not run_ids:
            return []
        asked = "SELECT device_h FROM stages WHERE run_id IN (SELECT unnest(?::VARCHAR[]))"
        rows = index.use(self.asked.home, lambda store: store.query(asked, [list(run_ids)]))
        return [row["device_h"] or 0.0 for row in rows]


def _reason(row: dict[str, Any]) -> str:
    """Why a run has no result."""
    why = str(row["error"])
    return f"{INAPPLICABLE}: {why.removeprefix('NotApplicable: ')}" if row["status"] == "not_applicable" else why


def _searched(one: Dimension) -> Searched:
    if one.choices:
        return Searched(given=one.given, choices=one.choices)
    return Searched(given=one.given, low=one.low, high=one.high, log=one.log)
