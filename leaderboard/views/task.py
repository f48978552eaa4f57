"""A task's page: one section a device class, then its specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.leaderboard.draw.figures import Chart, cost_chart, difference_chart, external_chart, key_of, task_charts
from kdbench.leaderboard.draw.numbers import NONE, digits_for, fixed, range_of
from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.model.entries import TaskVersion
from kdbench.leaderboard.model.ranking import Hole, TaskBoard
from kdbench.leaderboard.model.suites import SuiteBoard
from kdbench.leaderboard.tables.cells import all_untuned, metric_word, runs_behind, with_half
from kdbench.leaderboard.tables.costs import launch_words
from kdbench.leaderboard.tables.table import Table, Words
from kdbench.leaderboard.tables.task_table import task_table
from kdbench.leaderboard.views.answer import searched_words
from kdbench.leaderboard.views.classes import ClassTable, class_table
from kdbench.leaderboard.views.overview import pickable
from kdbench.leaderboard.views.panel import Panel, panel_of
from kdbench.leaderboard.views.suite import noise_word, separation_word, small_word
from kdbench.results import claims
from kdbench.results.beside import Told
from kdbench.specs import registry
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import Missing


@dataclass(frozen=True)
class TaskSection:
    """A task on one device class."""

    key: str
    device: str
    deck: str
    table: Table
    apart: Table
    charts: tuple[Chart, ...]
    differences: Chart | None
    elsewhere: Chart | None
    costs: Chart | None
    notes: tuple[str, ...]
    holes: tuple[Hole, ...]
    not_run: tuple[str, ...]
    panel: Panel | None
    classes: ClassTable | None


@dataclass(frozen=True)
class Rulesets:
    """Methods by published and by searched values, on one device class: a column of ranks and scores a ruleset."""

    key: str
    device: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]


@dataclass(frozen=True)
class TaskView:
    """What a task's page shows."""

    task: TaskVersion
    anchor: str
    lead: str
    warnings: tuple[str, ...]
    boards: tuple[TaskSection, ...]
    facts: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, str, int, str, str], ...]
    published: tuple[tuple[Words, str, str, str], ...]
    versions: tuple[TaskVersion, ...]
    bib: tuple[tuple[str, str], ...]
    rulesets: tuple[Rulesets, ...] = ()


def task_view(board: Board, task: TaskVersion, record: dict | None, kept: Mapping[str, Path], told: Told) -> TaskView:
    """The view of a task.

    Args:
        kept: run id to the file of its examples.
        told: scores of classes.
        record: any record of the task, for the hashes of its data and its protocol; None when there is none.
    """
    arrow = "more is better" if task.higher_is_better else "less is better"
    small = small_word([task])
    metric = f"{metric_word(task.metric)} in {task.unit}" if task.unit else metric_word(task.metric)
    lead = f"{task.kind}, {metric}, {arrow}; baseline {task.baseline}"
    warnings = [f"{small[0].upper()}{small[1:]}."] if small else []
    of_task = [one for one in board.task_boards if one.task == task]
    warnings += list(filter(None, [launch_words(row for one in of_task for row in one.comparable)]))
    if not task.ranked:
        warnings.append(f"Not ranked: {task.unranked_because or 'the task says so'}.")
    if not task.newest:
        warnings.append(
            "Archived: a newer version of this task exists; these rows are not ranked and not compared with it."
        )
    boards = tuple(_section(one, _suite_of(one, board), kept, told) for one in of_task)
    versions = tuple(other for other in board.tasks if other.name == task.name and other.version != task.version)
    suites = [suite for suite in board.suites if task in suite.all_tasks]
    anchor = f"#{key_of('suite', suites[0].suite, suites[0].place)}" if suites else ""
    shown = sorted({row.method for one in of_task for row in (*one.ranked, *one.apart)})
    known = board.catalogue.methods
    bib = tuple((name, known[name].card.bibtex()) for name in shown if name in known)
    facts, rows = tuple(_facts(task, record)), tuple(_rows(record))
    figures = _published(task, board)
    beside = tuple(_rulesets(of_task))
    return TaskView(task, anchor, lead, tuple(warnings), boards, facts, rows, figures, versions, bib, beside)


def _rulesets(boards: Sequence[TaskBoard]) -> Iterator[Rulesets]:
    """A table of each device class that has results of several rulesets."""
    for device in sorted({one.device for one in boards}):
        here = [one for one in boards if one.device == device]
        methods = {row.method for one in here if one.ruleset != AS_PUBLISHED for row in one.comparable}
        if len(here) < 2 or not methods:
            continue
        heads = ["Method"]
        for one in here:
            word = "As published" if one.ruleset == AS_PUBLISHED else f"Equal tuning, {one.ruleset}"
            heads += [f"{word}: rank", f"{word}: {metric_word(one.task.metric)}, n"]
        rows = tuple((_page(name), *(cell for one in here for cell in _of(one, name))) for name in sorted(methods))
        yield Rulesets(key_of("rulesets", device), device, tuple(heads), rows)


def _page(method: str) -> Words:
    return method, f"methods/{method}.html"


def _of(one: TaskBoard, method: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Rank and score of a method in one ruleset."""
    row = one.entry(method)
    if row is None:
        aside = next((row for row in one.apart if row.method == method and not row.custom), None)
        return (NONE, ""), (NONE, "") if aside is None else (aside.apart, runs_behind(aside.cell))
    digits = digits_for(one.task.unit, [v for other in one.comparable for v in other.result.scores.values()])
    rank = range_of(one.ranks.get(method, "")) if not row.apart else NONE
    score = f"{with_half(row.result.stat, digits)}, {row.result.stat.n}"
    return (rank, runs_behind(row.cell)), (score, runs_behind(row.cell))


def _suite_of(one: TaskBoard, board: Board) -> SuiteBoard | None:
    """The suite that a task is compared in, at the same place; None of an unranked one."""
    return next((suite for suite in board.suites if suite.place == one.place and one.task in suite.tasks), None)


def _section(one: TaskBoard, suite: SuiteBoard | None, kept: Mapping[str, Path], told: Told) -> TaskSection:
    task, key = one.task, key_of(one.task.label, one.place)
    seeds = ", ".join(map(str, one.seeds)) or "none"
    deck = f"Complete cells hold the seeds {seeds}. Rows are paired with {task.baseline} seed by seed."
    if one.ruleset != AS_PUBLISHED:
        deck += f" {searched_words(one.ruleset)}"
    if all_untuned(one):
        deck += " No method was tuned here: hyper-parameters are the cards’ defaults, none are published for this pair."
    caption = f"{task.label} on {one.place}, best first." if one.ranks else f"{task.label} on {one.place}, not ranked."
    notes = [word for word in (separation_word(one), _tie_note(one), _headroom(one), _elsewhere(one)) if word]
    return TaskSection(
        key,
        one.place,
        deck,
        pickable(task_table(one, one.ranked, f"{key}-table", caption), suite),
        task_table(
            one,
            one.apart,
            f"{key}-apart",
            f"{task.label} on {one.place}: rows that are not ranked, and why.",
            apart=True,
        ),
        task_charts(one, key),
        difference_chart(one, key),
        external_chart(one, key),
        cost_chart(one, key),
        tuple(notes),
        tuple(hole for hole in one.holes if hole.kind is not Missing.NOT_RUN),
        tuple(hole.method for hole in one.holes if hole.kind is Missing.NOT_RUN),
        panel_of(one, kept),
        class_table(one, key, told),
    )


def _tie_note(one: TaskBoard) -> str:
    if one.ties is None or not one.ties.note:
        return ""
    return f"{one.ties.note[0].upper()}{one.ties.note[1:]}."


def _elsewhere(one: TaskBoard) -> str:
    """Which rows' costs are not set against the others'."""
    found = sorted({row.elsewhere for row in one.ranked if row.elsewhere})
    said = [f"{', '.join(row.method for row in one.ranked if row.elsewhere == name)} ({name})" for name in found]
    return (
        f"Costs measured on another processor than most, and left out of the charts: {'; '.join(said)}." if said else ""
    )


def _headroom(one: TaskBoard) -> str:
    """Teacher and plain side by side, and the noise that no seed interval holds."""
    plain = one.entry(PLAIN)
    teacher = next((row.result.teacher for row in one.ranked if row.result.teacher is not None), None)
    words = []
    if teacher is not None:
        words.append(f"teacher {fixed(teacher, 2)} {one.task.unit}")
    if plain is not None:
        words.append(f"plain {fixed(plain.result.stat.mean, 2)} {one.task.unit}")
    leader = one.ranked[0] if one.ranked else None
    if leader is not None and (word := noise_word(one.task.metric, leader.result.stat.mean, leader.test_items)):
        words.append(word)
    return f"For scale: {'; '.join(words)}. One teacher for all seeds: its own noise is left out." if words else ""


def _published(task: TaskVersion, board: Board) -> tuple[tuple[Words, str, str, str], ...]:
    """Method, figure, spread and source of what others published on the task's data and pair."""
    if task.spec is None:
        return ()
    known = [name for name, ref in board.catalogue.methods.items() if registry.methods().get(name) is ref]
    return tuple(
        (
            _page(claim.method) if claim.method in board.methods else claim.method,
            fixed(claim.value, 2),
            NONE if claim.std is None else f"± {claim.std:g}",
            claim.source + ("" if claim.verified else " (not read by us)"),
        )
        for claim in claims.on_task(task.spec, known)
    )


def _facts(task: TaskVersion, record: dict | None) -> list[tuple[str, str]]:
    facts = [("Name", task.label), ("Suite", task.suite), ("Metric", task.metric), ("Baseline", task.baseline)]
    if task.spec is not None:
        pair = task.spec.pair
        teachers = ", ".join(f"{role}: {teacher.net}" for role, teacher in pair.teachers.items()) or "none"
        facts += [
            ("Student", pair.student.net),
            ("Teachers", teachers),
            ("Seeds of the task", ", ".join(map(str, task.spec.seeds))),
        ]
        facts += [(f"Note on {word}", text) for word, text in task.spec.notes.items()]
    if record is not None:
        p = record["protocol"]
        optimizer = ", ".join(f"{k} {v}" for k, v in p["optimizer"].items())
        facts += [
            ("Length", f"{p['epochs']} epochs, batch {p['batch']}"),
            ("Optimiser", f"{optimizer}, learning rate {p['lr']:g}, weight decay {p['weight_decay']:g}"),
            ("Schedule", ", ".join(f"{k} {v}" for k, v in p["schedule"].items()) or "constant"),
            ("Augmentation", ", ".join(p["augment"]) or "none"),
            ("Precision", p["amp"] if p["amp"] != "off" else "fp32"),
        ]
    return facts


def _rows(record: dict | None) -> list[tuple[str, str, int, str, str]]:
    data = record["task"]["data"] if record else []
    return [(d["name"], d["split"], d["n"], d["source"], d["sha256"][:16] + "…") for d in data]
