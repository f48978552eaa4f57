"""Which values are tried: the given ones first, then points of a sampler of Optuna's."""

from __future__ import annotations

import importlib.util
import warnings
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
    """

    def __init__(self, dimensions: Sequence[Dimension], sampler: Sampler, higher_is_better: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.dimensions = dimensions
        self._optuna: Any = optuna
        self._qmc = sampler == "qmc"
        with warnings.catch_warnings():  # its interface may change, says Optuna
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            qmc = optuna.samplers.QMCSampler(scramble=False, seed=0)
        chosen = qmc if self._qmc else optuna.samplers.TPESampler(seed=0)
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if higher_is_better else directions.MINIMIZE
        self._study: Any = optuna.create_study(sampler=chosen, direction=direction)
        self._ranges = {self._name(number): self._range(one) for number, one in enumerate(dimensions)}
        self._asked: Any = None
        self._first = True

    def next(self) -> dict[str, Any]:
        """Values by key: the given ones at first."""
        if self._first:
            return {one.key: one.given for one in self.dimensions}
        self._asked = self._study.ask(fixed_distributions=self._ranges)
        return {one.key: _rounded(self._asked.params[self._name(number)]) for number, one in enumerate(self.dimensions)}

    def tell(self, value: float | None) -> None:
        """What the last values gave; None where they gave nothing."""
        if not self._first:
            state = self._optuna.trial.TrialState.FAIL if value is None else None
            self._study.tell(self._asked, value, state=state)
            return
        self._first = False
        inside = {name: self._within(one) for name, one in zip(self._ranges, self.dimensions, strict=True)}
        worst = -1e9 if self._study.direction == self._optuna.study.StudyDirection.MAXIMIZE else 1e9
        self._study.add_trial(
            self._optuna.create_trial(
                params=inside, distributions=self._ranges, value=worst if value is None else value
            )
        )
        for _ in range(SKIPPED if self._qmc else 0):
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
