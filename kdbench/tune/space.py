"""What is searched: the task's learning rate for every method, and what a method's card has numbers of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdbench.specs.card import HyperParameter
from kdbench.specs.config import RunConfig
from kdbench.specs.pair import AUTO

FACTOR = 4.0
"""Values up to so many times smaller and larger than the given one are searched, where a card states no range."""
RATE = "train.optimizer.lr"


@dataclass(frozen=True)
class Dimension:
    """A setting and its range, by the key that overrides it; between ``low`` and ``high``, or among ``choices``.

    Attributes:
        given: the value without a search: the task's, or the card's for this task.
        whole: values are whole numbers.
        source: why there.
    """

    key: str
    given: Any
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    whole: bool = False
    source: str = field(default="", compare=False)


AROUND = f"{FACTOR:g} times smaller and larger"


def space(config: RunConfig) -> list[Dimension]:
    """The learning rate, then the method's own settings in the order of its card; those of an inner method stay."""
    rate = config.task.train.optimizer.lr
    found = [Dimension(RATE, rate, rate / FACTOR, rate * FACTOR, log=True, source=AROUND)]
    given = config.method.params
    return found + [
        one for key, hp in config.method.ref.card.hyper_parameters.items() for one in _of(key, hp, given[key])
    ]


def of_teachers(config: RunConfig) -> dict[str, Any]:
    """Settings that leave each teacher the optimiser that it has by the task, whatever the student's rate becomes."""
    task = config.task
    own = [role for role, one in task.pair.teachers.items() if one.weights == AUTO and one.train.optimizer is None]
    given = task.train.optimizer.model_dump(mode="json", exclude_none=True)
    return {f"pair.teachers.{role}.train.optimizer.{key}": value for role in own for key, value in given.items()}


def _of(key: str, hp: HyperParameter, given: Any) -> Iterator[Dimension]:
    """A hyper-parameter's range: its card's, as far as the given value where that lies outside, or factors around a
    float above 0; nothing for what else has no range.
    """
    name, stated = f"method.{key}", hp.search
    if stated is False:
        return
    if stated is not None and stated.choices is not None:
        own = list(given) if isinstance(given, tuple) else given  # as a file of choices has it
        yield Dimension(name, own, choices=tuple(stated.choices), source=stated.source)
    elif given is not None and stated is not None and stated.low is not None and stated.high is not None:
        # a factor is never 0, so that a given 0 stays outside
        ends = [stated.low, stated.high, *([given] if given > 0 or not stated.log else [])]
        yield Dimension(name, given, min(ends), max(ends), stated.log, whole=hp.kind == "int", source=stated.source)
    elif hp.kind == "float" and given is not None and given > 0:
        low = given / FACTOR if hp.min is None else max(given / FACTOR, hp.min)
        high = given * FACTOR if hp.max is None else min(given * FACTOR, hp.max)
        if hp.above is not None and low <= hp.above:
            low = given
        if 0 < low < high:
            yield Dimension(name, given, low, high, log=True, source=AROUND)
