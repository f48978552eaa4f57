"""Searches of a method's hyper-parameters: what was tried, what it scored, and how long that took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdbench.leaderboard.draw.figures import Chart, both_sizes, key_of
from kdbench.leaderboard.draw.numbers import NONE, digits_for, fixed, significant
from kdbench.leaderboard.draw.searches import Setting, search_panels
from kdbench.leaderboard.tables.cells import metric_word
from kdbench.specs.tuned import Searched, TrialKept, TunedEntry


@dataclass(frozen=True)
class SearchView:
    """A search as a method's page shows it; ``rows`` are its trials in order, the values and the score."""

    key: str
    title: str
    deck: str
    chart: Chart | None
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def search_views(searches: Iterable[TunedEntry], method: str) -> tuple[SearchView, ...]:
    """The searches of a method, those that were cut down left out."""
    return tuple(_view(entry) for entry in searches if entry.method == method and not entry.smoke)


def _view(entry: TunedEntry) -> SearchView:
    task = f"{entry.task.name}@v{entry.task.version}"
    own = f" with {', '.join(entry.overrides)}" if entry.overrides else ""
    key = key_of("search", task, entry.ruleset, *entry.overrides)
    scored = [trial for trial in entry.trials if trial.score is not None]
    digits = digits_for(entry.unit, [score for trial in scored for score in trial.scores.values()])
    unit = f", {entry.unit}" if entry.unit else ""
    lost = len(entry.trials) - len(scored)
    deck = (
        f"{len(entry.trials)} trials{own}, {significant(entry.hours)} device-h"
        + (f" on {entry.device_class}" if entry.device_class else "")
        + f", scored on training rows that the student did not see, seed {', '.join(map(str, entry.seeds))}"
        + (f"; {lost} gave no score." if lost else ".")
    )
    names = tuple(key.rpartition(".")[2] for key in entry.searched)
    return SearchView(
        key,
        f"{task}, {entry.ruleset}",
        deck,
        _chart(entry, key, scored, digits, f"{metric_word(entry.metric)}{unit}"),
        ("Trial", *names, f"{metric_word(entry.metric)}{unit}"),
        tuple(_row(entry, number, digits) for number in range(len(entry.trials))),
    )


def _row(entry: TunedEntry, number: int, digits: int) -> tuple[str, ...]:
    trial = entry.trials[number]
    name = "given" if number == 0 else str(number)
    values = (trial.values[key] for key in entry.searched)
    shown = (significant(value) if isinstance(value, float) else str(value) for value in values)
    score = NONE if trial.score is None else fixed(trial.score, digits)
    return (f"{name}, best" if number == entry.best else name, *shown, score)


def _chart(entry: TunedEntry, key: str, scored: Sequence[TrialKept], digits: int, label: str) -> Chart | None:
    """The picture; None where the given values have no score, so that nothing can be marked."""
    if entry.trials[0].score is None:
        return None
    settings = [_setting(name, one, scored) for name, one in entry.searched.items()]
    scores = [trial.score for trial in scored if trial.score is not None]
    best = scored.index(entry.trials[entry.best])
    title = f"Search of {entry.method} on {entry.task.name}"
    wide, narrow = both_sizes(
        search_panels, f"{key}-chart", settings, scores, best, title=title, label=label, digits=digits
    )
    caption = "The open mark and the line are the given values, the filled square is the best trial."
    return Chart("search", wide, narrow, caption)


def _setting(key: str, one: Searched, scored: Sequence[TrialKept]) -> Setting:
    name, values = key.rpartition(".")[2], [trial.values[key] for trial in scored]
    if one.choices is None:
        return Setting(name, tuple(map(_number, values)), _number(one.given), one.log)
    known = list(one.choices) + [value for value in (one.given,) if value not in one.choices]
    places = tuple(float(known.index(value)) for value in values)
    return Setting(name, places, float(known.index(one.given)), choices=tuple(map(str, known)))


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
