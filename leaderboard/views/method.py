"""A method's page: its card, hyper-parameters and their sources, results, costs by stage, and what was claimed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kdbench.leaderboard.draw.numbers import NONE, between, digits_for, fixed, range_of, signed, significant, times
from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.model.entries import CUSTOM, MATCHED, SMOKE, Entry
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.model.ratios import step_ratio
from kdbench.leaderboard.model.source import IndexRow, Source
from kdbench.leaderboard.tables.cells import LEVEL_MARKS, LEVELS, anchor_of, measured_in, with_half
from kdbench.leaderboard.tables.costs import based
from kdbench.leaderboard.tables.table import Words
from kdbench.leaderboard.views.facts import asked
from kdbench.leaderboard.views.searches import SearchView, search_views
from kdbench.specs.card import FAMILIES, Card, Claim
from kdbench.specs.registry import PLAIN, MethodRef
from kdbench.specs.tuned import AS_PUBLISHED


@dataclass(frozen=True)
class Result:
    """A cell of the method in a line."""

    task: str
    slug: str
    device: str
    rank: str
    score: str
    delta: str
    ratio: str
    recipe: str
    level: str
    apart: str
    runs: tuple[tuple[str, str], ...]
    behind: str
    measured: str


@dataclass(frozen=True)
class SeedLine:
    """A seed of a cell, beside its partners.

    Attributes:
        anchor: of the cell, on its first line; "" on the others.
        values: the cell's score, then score and difference of baseline, plain, and plain trained as long: what is
            printed and the run that it is of, "" where none is.
    """

    anchor: str
    task: str
    slug: str
    device: str
    seed: int
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClaimLine:
    """A published figure beside ours; ``behind``: where our runs are listed, "" where there are none."""

    where: str
    claimed: str
    ours: str
    difference: str
    reference: str
    behind: str = ""


@dataclass(frozen=True)
class MethodView:
    """What a method's page shows; ``ref`` is None for a method that is not registered here.

    Attributes:
        matched: the method whose recipe plain was trained as long as, "" on the page of a method itself.
    """

    name: str
    matched: str
    ref: MethodRef | None
    card: Card | None
    family: str
    facts: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, str, str, str], ...]
    published: tuple[tuple[str, str, str], ...]
    used: tuple[tuple[str, str, str], ...]
    results: tuple[Result, ...]
    seeds: tuple[SeedLine, ...]
    holes: tuple[tuple[str, str, str, str], ...]
    stages: tuple[tuple[Words, ...], ...]
    totals: tuple[tuple[Words, ...], ...]
    claims: tuple[ClaimLine, ...]
    runs: tuple[IndexRow, ...]
    variants: tuple[str, ...]
    reconstructed: tuple[tuple[str, str], ...]
    bibtex: str
    searches: tuple[SearchView, ...] = ()


def method_view(board: Board, name: str) -> MethodView:
    """The view of a method or variant."""
    ref = board.catalogue.methods.get(name)
    card = ref.card if ref else None
    rows = [row for row in board.entries if row.method == name and row.apart != MATCHED]
    runs = sorted(
        (run for run in board.source.runs.values() if run["method"] == name),
        key=lambda run: (run["task"], -run["task_version"], run["device_class"], run["seed"], run["run_id"]),
    )
    matched = next((run["matched_method"] for run in runs if run["matched_method"]), None) or ""
    open_rows = [row for row in rows if row.apart not in {CUSTOM, SMOKE, "superseded"}]
    siblings = sorted(
        other for other, it in board.catalogue.methods.items() if card and it.card.name == card.name and other != name
    )
    return MethodView(
        name=name,
        matched=matched,
        ref=ref,
        card=card,
        family=FAMILIES[card.family] if card else "",
        facts=tuple(_facts(ref, rows, board.source)),
        params=tuple(_params(ref)),
        published=tuple(_published(card)),
        used=tuple(_used(row) for row in open_rows if row.params),
        results=tuple(_result(one, row) for one, row in _cells(board, name)),
        seeds=tuple(line for one, row in _cells(board, name) for line in _seeds(one, row)),
        holes=tuple(_holes(board, name)),
        stages=tuple(line for row in open_rows for line in _stages(row)),
        totals=tuple(_totals(row) for row in open_rows),
        claims=tuple(_claimed(claim, rows) for claim in (ref.card.claims if ref and ref.variant is None else ())),
        runs=tuple(runs),
        variants=tuple(siblings),
        reconstructed=_reconstructed(card),
        bibtex=card.bibtex() if card else "",
        searches=search_views(board.catalogue.searches, name),
    )


def _facts(ref: MethodRef | None, rows: list[Entry], source: Source) -> list[tuple[str, str]]:
    if ref is None:
        return []
    card = ref.card
    facts = [
        ("Authors", ", ".join(card.authors)),
        ("Published", f"{card.venue} {card.year}"),
        ("Kinds of task", ref.kinds_said),
        ("Adapter version", card.version),
        ("Parity with the authors’ code", card.parity),
    ]
    if ref.variant is not None:
        facts.insert(0, ("Variant of", f"{card.name}: {ref.variant.about}"))
        if ref.variant.own_protocol:
            own = ", ".join(f"{key} = {value}" for key, value in ref.variant.own_protocol.items())
            facts.append(("Own protocol", own))
    if card.claimed_overhead:
        facts.append(("Overhead, as claimed", card.claimed_overhead))
    if rows:
        runs = rows[-1].result.runs
        facts.append(("Asks of a task", _needs(source.settings[runs[min(runs)]]["needs"])))
    sources = sorted({row.cell["params_source"].replace("_", " ") for row in rows})
    return [*facts, ("Hyper-parameters of its runs", ", ".join(sources))] if sources else facts


def _needs(needs: dict[str, Any]) -> str:
    """What the newest runs asked for, without what every method asks for."""
    words = []
    for name, value in asked(needs).items():
        shown = _value(value).replace("*", "any")
        words.append(name if value is True else f"{name}: {shown}")
    return "; ".join(words) or "nothing special"


def _used(row: Entry) -> tuple[str, str, str]:
    values = ", ".join(f"{key} = {_value(value)}" for key, value in row.params.items())
    apart = f" ({row.apart})" if row.apart else ""
    return f"{row.task.label}, {row.place}{apart}", values, row.cell["params_source"].replace("_", " ")


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _params(ref: MethodRef | None) -> list[tuple[str, str, str, str]]:
    if ref is None:
        return []
    changed = ref.variant.params if ref.variant else {}
    return [
        (
            name,
            _value(changed.get(name, hp.default)),
            hp.doc,
            "this variant" if name in changed else hp.source or "kdbench",
        )
        for name, hp in ref.card.hyper_parameters.items()
    ]


def _published(card: Card | None) -> list[tuple[str, str, str]]:
    if card is None:
        return []
    return [
        (
            ", ".join(f"{key} {value}" for key, value in entry.when.model_dump(exclude_none=True).items())
            or "everywhere",
            ", ".join(f"{key} = {_value(value)}" for key, value in entry.params.items()),
            entry.source,
        )
        for entry in card.published
    ]


def _reconstructed(card: Card | None) -> tuple[tuple[str, str], ...]:
    if card is None or card.reconstruction is None:
        return ()
    return tuple((point.says, point.done) for point in card.reconstruction.points)


def _cells(board: Board, name: str) -> Iterator[tuple[TaskBoard, Entry]]:
    """Every row of a method with the board that it stands on."""
    longer = [row for row in board.entries if row.method == name and row.apart == MATCHED]
    for one in board.task_boards:
        yield from ((one, row) for row in (*one.ranked, *one.apart) if row.method == name)
        yield from ((one, row) for row in longer if (row.task, row.place) == (one.task, one.place))


def _digits(one: TaskBoard) -> int:
    return digits_for(one.task.unit, [value for row in one.comparable for value in row.result.scores.values()])


def _result(one: TaskBoard, row: Entry) -> Result:
    stat, delta, ratio, digits = row.result.stat, row.vs_baseline, step_ratio(row), _digits(one)
    shown = NONE
    if delta is not None:
        shown = signed(delta.mean, digits)
        if delta.lo is not None and delta.hi is not None:
            shown += f" {between(delta.lo, delta.hi, digits, sign=True)}"
        shown += f" {one.task.points}"
    step = NONE
    if ratio is not None:
        step = f"{times(ratio[0])} {between(ratio[1], ratio[2], 2)}" if ratio[2] > ratio[1] else times(ratio[0])
    level = row.cell["level"]
    return Result(
        one.task.label,
        one.task.slug,
        one.place,
        range_of(one.ranks.get(row.method, "")) if not row.apart else NONE,
        f"{with_half(stat, digits)} {one.task.unit}, n = {stat.n}",
        "reference" if row.is_baseline else shown,
        step,
        times(row.recipe_ratio) if row.recipe_ratio else NONE,
        "✕ failed check" if row.cell["verification_failed"] else f"{LEVEL_MARKS[level]} {LEVELS[level]}",
        row.why_apart,
        tuple((str(seed), run) for seed, run in row.result.runs.items()),
        anchor_of(row.cell),
        row.result.record.run_id,
    )


def _seeds(one: TaskBoard, row: Entry) -> Iterator[SeedLine]:
    """The cell's runs and those that its differences are taken to, seed by seed."""
    result, digits, turn = row.result, _digits(one), 1 if one.task.higher_is_better else -1
    partners = list(_partners(one, row))
    for seed, score in result.scores.items():
        values = [(fixed(score, digits), result.runs[seed])]
        for partner in partners:
            theirs, run = partner.get(seed, (None, ""))
            change = NONE if theirs is None else signed(turn * (score - theirs), digits)
            values += [(NONE if theirs is None else fixed(theirs, digits), run), (change, "")]
        anchor = anchor_of(row.cell) if seed == min(result.scores) else ""
        yield SeedLine(anchor, one.task.label, one.task.slug, one.place, seed, tuple(values))


def _partners(one: TaskBoard, row: Entry) -> Iterator[Mapping[int, tuple[float, str]]]:
    """Score and run by seed of baseline, plain, and plain trained as long; empty where no difference is taken."""
    result, matched = row.result, row.result.matched
    for name in (one.task.baseline, PLAIN):
        theirs = result.theirs[name] if result.deltas[name] is not None else {}
        yield {seed: (score, result.their_runs[name][seed]) for seed, score in theirs.items()}
    longer = {} if matched is None or result.to_matched is None else dict(
        zip(matched["seeds"], matched["scores"], strict=True)
    )  # fmt: skip
    yield {seed: (score, row.matched_runs[seed]) for seed, score in longer.items()}


def _holes(board: Board, name: str) -> list[tuple[str, str, str, str]]:
    return [
        (one.task.label, one.place, hole.kind.label, hole.reason)
        for one in board.task_boards
        for hole in one.holes
        if hole.method == name and one.task.newest
    ]


def _stages(row: Entry) -> list[tuple[Words, ...]]:
    """The stages of the run that the cell's costs are quoted from, in the order in which they ran."""
    where = f"{row.task.label}, {row.place}"
    return [
        (
            where,
            line.name,
            line.ledger.replace("_", " "),
            (significant(line.hours), measured_in(row)),
            str(line.steps),
            line.basis,
            "yes" if line.reusable else "no",
        )
        for line in row.result.stages
    ]


def _totals(row: Entry) -> tuple[Words, ...]:
    costs, run = row.result.totals, measured_in(row)
    return (
        f"{row.task.label}, {row.place}",
        str(len(row.result.runs)),
        (significant(costs.student_h), run),
        (significant(costs.recipe_h), run),
        (times(row.recipe_ratio), run) if row.recipe_ratio else NONE,
        (significant(costs.full_h), run) if costs.full_h is not None else "not known",
        ", ".join(based(costs, teacher=True)),
    )


def _claimed(claim: Claim, rows: list[Entry]) -> ClaimLine:
    """The published figure, and our cells of the same data, pair and metric."""
    pair = f"{claim.student} ← {claim.teacher or 'no teacher'}"
    match = next((row for row in rows if _same(claim, row)), None)
    note = "" if claim.verified else " (not checked against the paper)"
    claimed = f"{claim.value:g} {claim.unit}{note}"
    if match is None:
        return ClaimLine(f"{claim.source}, {pair}, {claim.metric}", claimed, "not run here", NONE, claim.reference)
    stat = match.result.stat
    ends = (
        between(stat.lo - claim.value, stat.hi - claim.value, 2, sign=True)
        if stat.lo is not None and stat.hi is not None
        else ""
    )
    ours = f"{fixed(stat.mean, 2)} {match.task.unit}, n = {stat.n}, {match.task.label}"
    return ClaimLine(
        f"{claim.source}, {pair}, {claim.metric}",
        claimed,
        ours,
        f"{signed(stat.mean - claim.value, 2)} {ends}".strip(),
        claim.reference,
        anchor_of(match.cell),
    )


def _same(claim: Claim, row: Entry) -> bool:
    spec = row.task.spec
    whole = spec is not None and spec.data.source == claim.source and spec.data.subset is None
    open_row = row.apart in {"", "own protocol"} and row.ruleset == AS_PUBLISHED
    return (
        whole
        and open_row
        and row.task.metric == claim.metric
        and row.cell["student"] == claim.student
        and (row.cell["teacher"] or "") == (claim.teacher or "")
    )
