"""The runs behind one answer: plain first, then method after method, for as long as the budget lasts."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kdbench.base.errors import UserError
from kdbench.data import status
from kdbench.distill import shortlist
from kdbench.distill.shortlist import KD, Candidate, recipe
from kdbench.specs import registry
from kdbench.specs.registry import PLAIN
from kdbench.sweep.devices import Where
from kdbench.sweep.plan import Asked
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Outcome, Sweep

UNITS = {"s": 1 / 3600, "m": 1 / 60, "h": 1.0, "d": 24.0}
SHORT = 3
"""Methods beside plain and kd where no budget says otherwise: a table of five."""
BESIDE_H = {"off": 10 / 3600, "quick": 30 / 3600, "full": 120 / 3600}
"""About what starting a method's runs takes, and measuring its cost in each mode."""
ALWAYS = (PLAIN, KD)
"""Tried whatever the budget."""
MATCHED = f"{PLAIN}@"


def parse_budget(text: str) -> float:
    """``30m``, ``2h``, ``1.5d`` or ``90s`` in hours.

    Raises:
        UserError: anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or not float(found[1]):
        raise UserError(f"--budget {text!r}: write a number and a unit, such as 90s, 30m, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Planned:
    """A method of a study.

    Attributes:
        runs: seeds without a record.
        hours: of all of them, None where nothing tells.
    """

    candidate: Candidate
    runs: int
    hours: float | None


@dataclass
class Study:
    """Methods on one task within a budget.

    Args:
        asked: task, seeds, home and data; its methods are not read.
        candidates: in the order they are tried.
        where: the devices.
        budget: hours of this machine, None for no limit.
        most: methods tried beside plain and kd, None for no limit.
        say: told of every decision.

    Attributes:
        left: methods that were not tried, with the reason.
    """

    asked: Asked
    candidates: Sequence[Candidate]
    where: Where
    budget: float | None
    most: int | None = None
    say: Callable[[str], None] = print
    progress: SweepProgress = field(default_factory=SweepProgress.stderr)
    left: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _spent: float = 0.0
    _foreseen: float = 0.0

    @classmethod
    def of(
        cls,
        asked: Asked,
        methods: Sequence[str] | None,
        where: Where,
        budget: str | None,
        say: Callable[[str], None] = print,
    ) -> Study:
        """A study as it is asked for in words.

        Args:
            methods: names; None for those that published runs speak for, :data:`SHORT` of them where no budget says how
                many.
            budget: as of :func:`parse_budget`.

        Raises:
            UserError: of the budget, or a name.
        """
        hours = None if budget is None else parse_budget(budget)
        spec = registry.task(asked.tasks[0])
        if methods is None:
            return cls(asked, shortlist.recommended(spec), where, hours, SHORT if hours is None else None, say)
        return cls(asked, shortlist.named(methods, spec), where, hours, None, say)

    @property
    def task(self) -> str:
        """The task's name."""
        return self.asked.tasks[0]

    def plan(self) -> list[Planned]:
        """All candidates with what is left to run of them, and about how long it takes."""
        return [self._planned(candidate) for candidate in self.candidates]

    def fits(self, planned: Sequence[Planned]) -> list[Planned]:
        """Those of a plan that there is room for, in order; what is of unknown length counts nothing."""
        found: list[Planned] = []
        sum_h = 0.0
        for one in planned:
            hours = one.hours or 0.0
            room = math.inf if self.budget is None else self.budget - sum_h
            wanted = self._wanted(one.candidate, [other.candidate.method for other in found])
            if wanted and (one.candidate.method in ALWAYS or hours <= room):
                found.append(one)
                sum_h += hours
        return found

    def run(self) -> None:
        """plain, kd, and then each candidate in turn that still fits; then plain trained as long as each."""
        tried: list[str] = []
        for candidate in self.candidates:
            if self._wanted(candidate, tried):
                tried += [candidate.method] if self._try(candidate) else []
        for method in tried:
            if method != PLAIN and not method.startswith(MATCHED):
                self._try(Candidate(MATCHED + method, f"plain trained as long as {method}"))

    def _wanted(self, candidate: Candidate, tried: Sequence[str]) -> bool:
        """Whether a candidate is tried after others, time apart."""
        others = sum(name not in ALWAYS for name in tried)
        return candidate.method in ALWAYS or self.most is None or others < self.most

    def _try(self, candidate: Candidate) -> bool:
        """Runs a method if it fits; whether it has results."""
        one = self._planned(candidate)
        room = math.inf if self.budget is None else self.budget - self._spent
        expected = (one.hours or 0.0) * self._factor()
        if candidate.method not in ALWAYS and one.runs and expected > room:
            self.left[candidate.method] = f"about {in_words(expected)}, {in_words(max(room, 0.0))} of the budget left"
            self.say(f"{candidate.method} is left out: {self.left[candidate.method]}")
            return False
        begin = time.monotonic()
        outcome = self._sweep(candidate.method).run()
        self.outcomes.append(outcome)
        self._spent += (time.monotonic() - begin) / 3600
        self._foreseen += one.hours or 0.0
        if outcome.statuses and set(outcome.statuses) == {"not_applicable"}:
            self.left[candidate.method] = "does not apply"
        return candidate.method not in self.left

    def _factor(self) -> float:
        """Hours taken over hours foreseen so far, where they were more."""
        return self._spent / self._foreseen if self._foreseen and self._spent > self._foreseen else 1.0

    def _sweep(self, method: str) -> Sweep:
        asked = replace(self.asked, methods=(method,))
        return Sweep(asked, self.where, self.progress)

    def _planned(self, candidate: Candidate) -> Planned:
        sweep = self._sweep(candidate.method)
        cells = sweep.matched() if candidate.method.startswith(MATCHED) else sweep.first()
        runs = sum(len(cell.seeds) for cell in cells)
        hours = next((cell.hours for cell in cells), None)
        if hours is None:
            hours = self._guess(candidate.method, sweep)
        beside = BESIDE_H[self.asked.overhead] if runs else 0.0
        return Planned(candidate, runs, None if hours is None else hours * runs + beside)

    def _guess(self, method: str, sweep: Sweep) -> float | None:
        """Hours of a run: plain's here times what a method costs as published; before plain has run, by its nets."""
        spec = registry.task(self.task)
        known = sweep.known().hours_of(PLAIN, self.task)
        base = method.removeprefix(MATCHED)
        if known is not None:
            return known * recipe(base, spec)
        minutes = status.status(spec, self.asked.data, self.asked.home.data).minutes
        return None if minutes is None else minutes / 60 * recipe(base, spec) / recipe(KD, spec)


def in_words(hours: float) -> str:
    """Hours as people say them."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h"
