"""Which values are tried: the given ones first, then points of a sampler of Optuna's."""

from __future__ import annotations

import importlib.util
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.base.errors import UserError
from kdbench.specs.overrides import as_words
from kdbench.specs.tuned import Sampler
from kdbench.tune.space import Dimension

EXTRA = "tune"
SKIPPED = 2
"""Of the sequence: its first point is the corner of all lower bounds, its second the middle, which is tried already."""


def require() -> None:
    """Raises UserError where Optuna is not installed, saying how to."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(f"kdbench tune needs optuna: pip install 'kdbench[{EXTRA}]' brings it")


class Points:
    """Values to try, one set after another.

    Args:
        dimensions: what varies.
        sampler: how the points after the first are chosen.
        higher_is_better: direction of the values that :meth:`tell` is given.

    Attributes:
        independent: whether values do not depend on what others gave, so that many may be asked for before one is told.
    """

    def __init__(self, dimensions: Sequence[Dimension], sampler: Sampler, higher_is_better: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.dimensions = dimensions
        self._optuna: Any = optuna
        self.independent = sampler == "qmc"
        with warnings.catch_warnings():  # its interface may change, says Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            qmc = optuna.samplers.QMCSampler(scramble=False, seed=0)
        chosen = qmc if self.independent else optuna.samplers.TPESampler(seed=0)
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if higher_is_better else directions.MINIMIZE
        self._study: Any = optuna.create_study(sampler=chosen, direction=direction)
        self._ranges = {self._name(number): self._range(one) for number, one in enumerate(dimensions)}
        self._asked: deque[Any] = deque()
        self._begun = False

    def next(self) -> dict[str, Any]:
        """Values by key: the given ones at first."""
        if not self._begun:
            self._begun = True
            self._asked.append(None)
            if self.independent:
                self._begin(0.0)  # the sampler asks for a finished trial, and not what it gave
            return {one.key: one.given for one in self.dimensions}
        asked = self._study.ask(fixed_distributions=self._ranges)
        self._asked.append(asked)
        return {one.key: _rounded(asked.params[self._name(number)]) for number, one in enumerate(self.dimensions)}

    def tell(self, value: float | None) -> None:
        """What the earliest values gave of which nothing is told yet; None where they gave nothing."""
        asked, failed = self._asked.popleft(), self._optuna.trial.TrialState.FAIL
        if asked is not None:
            self._study.tell(asked, value, state=failed if value is None else None)
        elif not self.independent:
            worst = -1e9 if self._study.direction == self._optuna.study.StudyDirection.MAXIMIZE else 1e9
            self._begin(worst if value is None else value)

    def _begin(self, value: float) -> None:
        """The given values are the study's first trial; the first points of an even spread are passed over."""
        inside = {name: self._within(one) for name, one in zip(self._ranges, self.dimensions, strict=True)}
        self._study.add_trial(self._optuna.create_trial(params=inside, distributions=self._ranges, value=value))
        for _ in range(SKIPPED if self.independent else 0):
            self._study.tell(
                self._study.ask(fixed_distributions=self._ranges), state=self._optuna.trial.TrialState.FAIL
            )

    def _name(self, number: int) -> str:
        """Sorted, as Optuna sorts them, the names are in the order of the dimensions: shared ones come first."""
        return f"{number:03d} {self.dimensions[number].key}"

    def _range(self, one: Dimension) -> Any:
        ranges = self._optuna.distributions
        if one.choices:
            return ranges.CategoricalDistribution(one.choices)
        if one.whole:
            return ranges.IntDistribution(round(one.low), round(one.high), log=one.log)
        return ranges.FloatDistribution(one.low, one.high, log=one.log)

    def _within(self, one: Dimension) -> Any:
        """The given value, or the nearest that the range holds."""
        if one.choices:
            return one.given if one.given in one.choices else one.choices[0]
        inside = min(max(one.given, one.low), one.high)
        return round(inside) if one.whole else inside


def _rounded(value: Any) -> Any:
    """Four digits are enough, and can be typed."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def words(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Values as overrides."""
    return tuple(as_words(values))
