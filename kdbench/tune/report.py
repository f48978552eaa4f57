"""What ``kdbench tune`` prints: what is searched, the trials, and the command that uses the best."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from kdbench.distill.study import in_words
from kdbench.specs import local
from kdbench.specs.config import run_config
from kdbench.sweep.report import GUESS
from kdbench.terminal import tables
from kdbench.tune.batch import Batch
from kdbench.tune.search import Search

BY_OTHERS = "by other tasks: what the method costs beside plain there, times plain here"
NAMED = 3
"""Methods that a line names; more are counted."""


def plan(search: Search) -> Iterator[Any]:
    """The ranges and the hours."""
    made = tables.table(f"search of {search.method} on {search.task}", "setting", ">given", ">from", ">to", "why there")
    for one in search.dimensions():
        ends = (", ".join(map(str, one.choices)), "") if one.choices else (f"{one.low:.4g}", f"{one.high:.4g}")
        made.add_row(escape(one.key), escape(str(one.given)), *ends, escape(one.source))
    yield made
    known = search.known()
    hours = search.hours(known)
    long = "of unknown length" if hours is None else f"about {in_words(hours)} here"
    if hours is not None and known.guessed(search.method, search.task):
        long += f" ({BY_OTHERS})"
    trials, seeds = search.trials, len(search.seeds)
    yield (
        f"{trials} trial{'s' * (trials > 1)} of {seeds} seed{'s' * (seeds > 1)}, the given values first, "
        f"{long}; scored on training rows that the student does not see, never on test rows"
    )


def batch(found: Batch) -> Iterator[Any]:
    """What would be searched, with hours, and what not and why."""
    made = tables.table("searches", "method", "task", ">trials", ">settings", ">hours", "left out")
    hours = found.hours()
    for one in found.searches:
        long = hours[one.method, one.task]
        guess = GUESS * found.known.guessed(one.method, one.task)
        shown = "–" if long is None else f"{guess}{long:.2g}"
        made.add_row(escape(one.method), escape(one.task), str(one.trials), str(len(one.dimensions())), shown, "")
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (method, task), why in found.left.items():
        reasons[task, why].append(method)
    for (task, why), methods in reasons.items():
        named = ", ".join(methods) if len(methods) <= NAMED else f"{len(methods)} methods"
        made.add_row(escape(named), escape(task), "–", "–", "–", escape(why))
    yield made
    known = [one for one in hours.values() if one is not None]
    if any(found.known.guessed(*place) for place, one in hours.items() if one is not None):
        yield f"{GUESS} goes {BY_OTHERS}"
    said = [f"about {in_words(sum(known))} here"] if known else []
    said += [f"{len(hours) - len(known)} of unknown length"] if len(known) < len(hours) else []
    yield (
        f"{len(hours)} searches{': ' * bool(said)}{', '.join(said)}; {len(found.kept)} are there already, "
        f"{len(found.left)} left out"
    )


def answer(search: Search) -> Iterator[Any]:
    """The trials, the best first, and what to type."""
    keys = [one.key for one in search.dimensions()]
    unit = search.spec.score.unit
    made = tables.table(
        f"{search.method} on {search.task}, validation rows: {search.spec.score.primary}, {unit}", "trial",
        *(f">{key.rpartition('.')[2]}" for key in keys), ">score",
    )  # fmt: skip
    sign = -1 if search.spec.score.higher_is_better else 1
    n = len(search.seeds)
    numbered = sorted(enumerate(search.done), key=lambda one: sign * (one[1].mean(n) or -sign * 1e9))
    for number, trial in numbered:
        score = trial.mean(n)
        name = "given" if number == 0 else str(number)
        shown = [
            f"{trial.values[key]:.4g}" if isinstance(trial.values[key], float) else str(trial.values[key])
            for key in keys
        ]
        made.add_row(name, *map(escape, shown), "–" if score is None else f"{score:.2f}")
    yield made
    best = search.best()
    if best is None:
        return
    if best is search.done[0]:
        yield "no values were better than those given"
    config = run_config(search.method, search.task, search.asked.overrides)
    method, task = local.typed(config)
    ruled = ["--ruleset", search.entry().ruleset, *(["--smoke"] if search.asked.smoke else [])]
    yield f"kept in {search.file}; to run it with the best values:"
    given = [*local.words(config), *search.asked.overrides]
    yield f"  {shlex.join(['kdbench', 'evaluate', '--method', method, '--task', task, *given, *ruled])}"
