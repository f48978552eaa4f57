"""What ``kdbench distill`` prints: the plan with its hours, the answer, and the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.markup import escape

from kdbench.distill.answer import Answer, answers, conclusion
from kdbench.distill.study import MATCHED, Planned, Study, in_words
from kdbench.index import home as index
from kdbench.index.store import Store
from kdbench.runs.evaluate import ingest
from kdbench.specs.registry import PLAIN
from kdbench.terminal import tables

SITE = "site"
"""Folder of the pages in the home."""


def plan(study: Study, planned: Sequence[Planned]) -> Iterator[Any]:
    """The methods that fit, with hours and the reason each is tried."""
    fits = study.fits(planned)
    made = tables.table(f"plan for {study.task}", "method", ">runs", ">about", "why")
    for one in fits:
        made.add_row(
            escape(one.candidate.method), str(one.runs), "unknown" if one.hours is None else in_words(one.hours),
            escape(one.candidate.why),
        )  # fmt: skip
    yield made
    known = [one.hours for one in fits if one.hours is not None]
    total = sum(known)
    guess = "" if len(known) == len(fits) else "; not counted: methods of unknown length"
    yield (
        f"about {in_words(total)} here, a rough guess until plain has run{guess}; as much again to train plain as long "
        "as each, where there is room"
    )
    if study.budget is not None:
        yield f"budget {in_words(study.budget)}: what does not fit is left out, and said"
    if more := [one.candidate.method for one in planned if one not in fits]:
        yield f"next in line: {', '.join(more)}"


def answered(study: Study, say: Callable[[str], None]) -> list[Answer]:
    """Runs a study and takes its records in; the answers of its methods."""
    study.asked.home.require_writable()
    study.run()
    if (warning := ingest(study.asked.home)) is not None:
        say(warning)
    return index.use(study.asked.home, lambda store: found(store, study))


def found(store: Store, study: Study) -> list[Answer]:
    """The answers of a study's methods, from the index."""
    methods = [candidate.method for candidate in study.candidates]
    classes = {row["device_class"] for row in store.cells(task=study.task) if study.where.belongs(row["device_class"])}
    return answers(store, study.task, methods, classes)


def answer(found: Sequence[Answer], study: Study) -> Iterator[Any]:
    """The table, a line of words a method, and the conclusion."""
    if not found:
        yield f"no method has a result on {study.task}"
        return
    unit = str(found[0].result.cell["unit"])
    made = tables.table(
        f"{study.task}: {found[0].result.cell['metric']}, {unit}", "method", ">score", ">n", ">Δ plain",
        ">Δ plain\nas long", ">recipe\n× plain",
    )  # fmt: skip
    for one in found:
        stat = one.result.stat
        made.add_row(
            escape(one.method), tables.interval(stat.mean, stat.lo, stat.hi), str(stat.n),
            tables.difference(one.over_plain), tables.difference(one.over_matched), tables.amount(one.recipe, digits=2),
        )  # fmt: skip
    yield made
    for one in found:
        if one.method != PLAIN:
            yield f"{one.method}: {one.words}"
    for method, why in study.left.items():
        if not method.startswith(MATCHED):
            yield f"{method}: not tried, {why}"
    yield from conclusion(found, unit)


def as_json(found: Sequence[Answer], study: Study) -> dict[str, Any]:
    """The answer as JSON data."""

    def delta(of: Any) -> dict[str, Any] | None:
        return None if of is None else {"mean": of.mean, "lo": of.lo, "hi": of.hi, "n": of.n}

    return {
        "task": study.task,
        "methods": [
            {
                "method": one.method,
                "score": {"mean": one.result.stat.mean, "lo": one.result.stat.lo, "hi": one.result.stat.hi},
                "n": one.result.stat.n,
                "over_plain": delta(one.over_plain),
                "over_plain_as_long": delta(one.over_matched),
                "recipe": one.recipe,
                "words": one.words,
                "run_ids": list(one.result.cell["run_ids"]),
            }
            for one in found
        ],
        "left": dict(study.left),
        "conclusion": conclusion(found, str(found[0].result.cell["unit"])) if found else [],
    }


def page(study: Study) -> str:
    """Writes the pages of the home's records, with gain against cost; says where."""
    from kdbench.leaderboard import build

    folder = study.asked.home.root / SITE
    build(study.asked.home.records, folder)
    name = study.task.replace("/", "__")
    pages = sorted((folder / "tasks").glob(f"{name}@v*.html"))
    return f"gain against cost, and every run: {pages[-1] if pages else folder / 'index.html'}"
