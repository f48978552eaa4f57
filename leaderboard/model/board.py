"""The board of an index: its rows, the boards of tasks and of suites made of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.entries import Entry, TaskVersion, entries, tasks
from kdbench.leaderboard.model.ranking import TaskBoard, task_board
from kdbench.leaderboard.model.source import IndexRow, Source
from kdbench.leaderboard.model.suites import SuiteBoard, suites


@dataclass(frozen=True)
class Board:
    """Everything the pages show."""

    source: Source
    catalogue: Catalogue
    tasks: tuple[TaskVersion, ...]
    entries: tuple[Entry, ...]
    task_boards: tuple[TaskBoard, ...]
    suites: tuple[SuiteBoard, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Registered methods and those with records."""
        return tuple(sorted({*self.catalogue.methods, *(row["method"] for row in self.source.runs.values())}))


def board(source: Source, catalogue: Catalogue) -> Board:
    """The board of an index."""
    known = tasks(source, catalogue)
    rows = entries(source, catalogue, known)
    by_place: dict[tuple[TaskVersion, str, str], list[Entry]] = defaultdict(list)
    runs: dict[tuple[TaskVersion, str, str], list[IndexRow]] = defaultdict(list)
    methods: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_place[row.task, row.device, row.ruleset].append(row)
    for run in source.runs.values():
        runs[known[run["task"], run["task_version"]], run["device_class"], run["ruleset"]].append(run)
        if not run["custom"] and not run["matched_method"]:
            methods[run["ruleset"]].add(run["method"])
    places = sorted(runs, key=lambda place: (place[0].name, -place[0].version, *place[1:]))
    boards = []
    for place in places:
        task, _, ruleset = place
        here = {run["method"] for run in runs[place]}
        listable = sorted(one for one in methods[ruleset] if one in here or catalogue.refusal(one, task.kind) is None)
        boards.append(task_board(*place, by_place[place], runs[place], listable))
    listed = sorted(known.values(), key=lambda t: (t.name, -t.version))
    return Board(source, catalogue, tuple(listed), tuple(rows), tuple(boards), tuple(suites(boards)))
