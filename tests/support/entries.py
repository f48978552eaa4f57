"""Tuned entries as a search leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdbench import ENGINE_VERSION, __version__
from kdbench.specs import tuned
from kdbench.specs.config import run_config
from kdbench.specs.tuned import Searched, TaskSearched, TrialKept, TunedEntry
from kdbench.tune.space import RATE, of_teachers, space


def an_entry(
    method: str, task: str, found: Mapping[str, Any], scores: Sequence[float | None] = (80.0, 85.0), **changes: Any
) -> TunedEntry:
    """An entry whose second trial has ``found``, and is the best where ``scores`` say so; hours are 0.01 a trial."""
    config = run_config(method, task)
    dimensions = space(config)
    given = {one.key: one.given for one in dimensions}
    higher = config.task.score.higher_is_better
    known = [score for score in scores if score is not None]
    best = scores.index(max(known) if higher else min(known))
    trials = tuple(
        TrialKept(
            values=given | (dict(found) if number else {}), score=score, hours=0.01,
            scores={} if score is None else {"1000": score}, run_ids=() if score is None else (f"{number:032x}",),
        )
        for number, score in enumerate(scores)
    )  # fmt: skip
    return TunedEntry(
        method=method, task=TaskSearched(name=task, version=config.task.version), cards=tuned.cards_of(config),
        engine_version=ENGINE_VERSION, kdbench_version=__version__, validation={"fraction": 0.2, "seed": 0},
        metric=config.task.score.primary, unit="%", higher_is_better=higher, sampler="qmc", seeds=(1000,),
        searched={one.key: Searched(given=one.given, low=one.low, high=one.high, log=one.log) for one in dimensions},
        trials=trials, best=best, values={**trials[best].values, **of_teachers(config)} if best else {},
        hours=0.01 * len(trials), at="2026-11-30T10:00:00Z",
    ).model_copy(update=changes)  # fmt: skip


RATE_FOUND = {RATE: 0.1}
