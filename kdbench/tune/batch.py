"""Searches of several methods on several tasks: what is left out and why, hours first, the rest one after the other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdbench.base.errors import UserError
from kdbench.specs import tuned
from kdbench.specs.config import run_config
from kdbench.sweep.known import Known
from kdbench.tune.search import Search
from kdbench.watch import words


@dataclass
class Batch:
    """Searches of one size.

    Attributes:
        searches: those to run, task by task.
        kept: methods and tasks whose search is there already, and of these versions.
        left: methods and tasks that are not searched, or whose search gave nothing, with the reason.
    """

    searches: list[Search] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    left: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, methods: Sequence[str], tasks: Sequence[str], search: Callable[[str, str], Search]) -> Batch:
        """What is to be searched.

        Args:
            search: the search of a method on a task.
        """
        found = cls()
        for task in tasks:
            for method in methods:
                found._take(search(method, task))
        return found

    def _take(self, search: Search) -> None:
        place = (search.method, search.task)
        if search.inapplicable is not None:
            self.left[place] = search.inapplicable
            return
        try:
            search.require()
            config = run_config(search.method, search.task, search.asked.overrides, smoke=search.asked.smoke)
        except UserError as error:
            self.left[place] = str(error)
            return
        try:
            tuned.find(config, search.ruleset, search.asked.home)
            self.kept.append(place)
        except UserError:
            self.searches.append(search)

    def hours(self) -> dict[tuple[str, str], float | None]:
        """About how long each search takes, None where nothing tells."""
        return {(one.method, one.task): one.hours(self.known) for one in self.searches}

    @functools.cached_property
    def known(self) -> Known:
        """What the home's index tells."""
        return self.searches[0].known() if self.searches else Known()

    def run(self) -> None:
        """All searches, each told of before it begins; one that gives nothing is left, and the others go on."""
        began, count = time.monotonic(), len(self.searches)
        for number, search in enumerate(self.searches):
            left = (time.monotonic() - began) / number * (count - number) if number else None
            name = f"search {number + 1}/{count}, {search.method} on {search.task}"
            search.say(f"{name}: ETA of all {words.clock(left)}")
            try:
                search.run()
            except UserError as error:
                self.left[search.method, search.task] = str(error)
