"""What `list` and `show` print of methods and tasks: their cards, task files and data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from kdbench.specs.block import ALL_KEYS
from kdbench.specs.card import FAMILIES, Card
from kdbench.specs.overrides import as_words
from kdbench.terminal.tables import amount, table

if TYPE_CHECKING:
    from kdbench.base.home import Home
    from kdbench.data.status import DataStatus
    from kdbench.specs.registry import MethodRef
    from kdbench.specs.task import TaskSpec
    from kdbench.specs.tuned import Listed


def methods(found: dict[str, MethodRef], ratios: Mapping[str, float]) -> list[Table]:
    """All methods, a table a family.

    Args:
        ratios: method to its measured step time over plain's, where one is known.
    """
    tables: list[Table] = []
    for family, about in FAMILIES.items():
        refs = [ref for ref in found.values() if ref.card.family == family]
        if not refs:
            continue
        made = table(
            f"{family}: {about}", "method", ">year", "tasks", "parity", ">step × plain", "needs", "what it does"
        )
        for ref in refs:
            what = ref.variant.about if ref.variant else ref.card.summary
            ratio = f"{ratios[ref.name]:.2f}" if ref.name in ratios else "–"
            kinds, needs = ref.kinds_said, ", ".join(ref.needs)
            made.add_row(escape(ref.name), str(ref.card.year), kinds, ref.card.parity, ratio, needs, escape(what))
        tables.append(made)
    return tables


def searches(found: Sequence[Listed], home: Home) -> Iterator[Table | str]:
    """Searches of hyper-parameters that there are."""
    made = table(
        "searches", "method", "task", "ruleset", ">given", ">best", "unit", ">hours", "of", "best values", "remarks"
    )
    for one in found:
        entry = one.entry
        given, best = entry.trials[0].score, entry.trials[entry.best].score
        values = ", ".join(as_words({key: value for key, value in entry.values.items() if key in entry.searched}))
        marks = [*(["smoke"] if entry.smoke else []), *entry.overrides]
        marks += [f"not used: {one.changed}"] if one.changed else []
        made.add_row(
            escape(entry.method), escape(f"{entry.task.name}@v{entry.task.version}"), entry.ruleset,
            amount(given, digits=2), amount(best, digits=2), entry.unit, f"{entry.hours:.2g}",
            "home" if one.path.is_relative_to(home.root) else "card", escape(values or "the given ones"),
            escape(", ".join(marks)),
        )  # fmt: skip
    yield made
    if not found:
        yield "none yet: kdbench tune --method METHOD --task TASK makes one"


def tasks(found: dict[str, TaskSpec], data: dict[str, DataStatus]) -> list[Table]:
    """All tasks, and their data sets."""
    device = next((status.device for status in data.values()), "")
    made = table(
        "tasks", "task", "kind", "suite", "pair", "metric", "ranked", "data", f">min a run ({device})", ">min teachers"
    )
    sets = table("data sets", "name", "state", "where", ">MB", "licence")
    shown: set[str] = set()
    for name, spec in found.items():
        status = data[name]
        made.add_row(
            escape(f"{spec.name}@v{spec.version}"), spec.kind, spec.suite,
            f"{spec.teacher_net or 'none'} → {spec.pair.student.net}",
            f"{spec.score.primary} {'↑' if spec.score.higher_is_better else '↓'} {spec.score.unit}",
            "yes" if spec.ranked else "no", status.state, _about(status.minutes), _about(status.teacher_minutes),
        )  # fmt: skip
        if status.name not in shown:
            shown.add(status.name)
            size = amount(status.megabytes, digits=0)
            sets.add_row(status.name, status.state, escape(status.about), size, escape(status.licence))
    return [made, sets]


def _about(minutes: float | None) -> str:
    """A rough number of minutes."""
    if minutes is None:
        return "–"
    return "< 1" if minutes < 1 else f"{float(f'{minutes:.2g}'):,.0f}"


def method(ref: MethodRef) -> list[Any]:
    """Everything a card says."""
    card = ref.card
    lines: list[Any] = [
        f"[bold]{escape(ref.name)}[/bold]  {escape(card.title)}",
        escape(f"{', '.join(card.authors)}. {card.venue} {card.year}. [{card.bibkey}]"),
        *(escape(link) for link in (card.links.paper, card.links.code) if link),
        escape(card.summary),
        f"family {card.family}; runs on {ref.kinds_said}; parity {card.parity}; adapter {card.version}",
    ]
    if ref.variant:
        lines.append(f"variant of {card.name}: {escape(ref.variant.about)} {escape(_assigned(ref.variant.params))}")
    if ref.needs:
        lines.append(f"needs {', '.join(map(escape, ref.needs))}")
    if card.claimed_overhead:
        lines.append(f"claimed overhead: {escape(card.claimed_overhead)}")
    if card.hyper_parameters:
        made = table("hyper-parameters (method.NAME=VALUE)", "name", ">default", "what it is", "source")
        for name, hp in card.hyper_parameters.items():
            made.add_row(name, escape(str(hp.default)), escape(hp.doc), escape(hp.source or ""))
        lines.append(made)
    lines += _published(card)
    if card.variants:
        made = table("variants", "name", "what it is", "parameters")
        for name, variant in card.variants.items():
            made.add_row(name, escape(variant.about), escape(_assigned({**variant.params, **variant.own_protocol})))
        lines.append(made)
    chosen: list[str] = []
    if card.reconstruction is not None:
        made = table(f"reconstructed from {escape(card.reconstruction.known)}", "what it says", "what the adapter does")
        for point in card.reconstruction.points:
            made.add_row(escape(point.says), escape(point.done))
        lines.append(made)
        chosen = card.reconstruction.choices
    for heading, notes in (
        ("chosen by kdbench", chosen),
        ("deviations", card.deviations),
        ("quirks kept", card.quirks),
    ):
        if notes:
            lines += [f"[bold]{heading}[/bold]", *(f"  - {escape(note)}" for note in notes)]
    return lines


def _published(card: Card) -> list[Table]:
    if not card.published:
        return []
    made = table("published values", "where", "values", "source")
    for entry in card.published:
        where = ", ".join(f"{k} {v}" for k, v in entry.when.model_dump(exclude_none=True).items())
        made.add_row(escape(where), escape(_assigned(entry.params)), escape(entry.source))
    return [made]


def _assigned(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def task(spec: TaskSpec, data: DataStatus, missing: Mapping[str, str]) -> list[Any]:
    """Everything a task file says, and where its data are; ``missing``: why external test sets would be left out."""
    lines: list[Any] = [
        f"[bold]{escape(spec.name)}@v{spec.version}[/bold]  {escape(spec.title)}",
        f"{spec.kind} task of suite {spec.suite}; baseline {spec.baseline}; seeds {', '.join(map(str, spec.seeds))}; "
        + ("ranked" if spec.ranked else f"not ranked: {escape(spec.unranked_because or '')}"),
        escape(f"data {data.name}: {data.state}; {data.about}"),
    ]
    for name, one in spec.score.external.items():
        left_out = f"; left out: {missing[name]}" if name in missing else ""
        lines.append(escape(f"scored elsewhere too, {name}: {one.words}{left_out}"))
    made = table("keys (KEY=VALUE)", "key", "value")
    body = spec.model_dump(
        mode="json", exclude={"name": True, "title": True, "notes": True, "score": {"external"}}, context=ALL_KEYS
    )
    for key, value in _leaves(body):
        made.add_row(escape(key), escape(str(value)))
    lines.append(made)
    lines += [f"  {name}: {escape(text)}" for name, text in spec.notes.items()]
    return lines


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(prefix, value)]
    return [leaf for key, item in value.items() for leaf in _leaves(item, f"{prefix}.{key}" if prefix else key)]
