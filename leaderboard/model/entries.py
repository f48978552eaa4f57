"""One line of the board: a cell (all seeds of one method on one task and device class) with what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdbench import kinds
from kdbench.base.fields import EVALUATION
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.source import IndexRow, Source
from kdbench.results.book import Result
from kdbench.results.pairing import Cell
from kdbench.specs.overrides import as_words
from kdbench.specs.registry import PLAIN
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import (
    CellStat,
    Direction,
    Gap,
    Missing,
    PairedDelta,
    clipped,
    gap_recovered,
    summarise,
)

CUSTOM, SMOKE, MATCHED = "custom settings", "smoke run", "compute-matched plain"
NOT_LEARNED = "a seed did not learn"
OTHER_DATA, NO_CARD, UNVERIFIED, RECONSTRUCTION = "other data", "no card", "parity unverified", "reconstruction"


def lost_words(lost: Mapping[int, Missing]) -> str:
    """Seeds without a score by why they have none, e.g. ``seeds 3, 4 failed, seed 5 not run``."""
    said = []
    for kind in Missing:
        seeds = sorted(seed for seed, why in lost.items() if why is kind)
        if seeds:
            said.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} {kind.value.replace('_', ' ')}")
    return ", ".join(said)


def place_of(device: str, ruleset: str) -> str:
    """What rows share that are compared: the device class, and the ruleset where values are not the published ones."""
    return device if ruleset == AS_PUBLISHED else f"{device}, {ruleset}"


@dataclass(frozen=True)
class TaskVersion:
    """A task version as the records and, where it is registered, its file describe it."""

    name: str
    version: int
    title: str
    kind: str
    suite: str
    ranked: bool
    unranked_because: str
    baseline: str
    metric: str
    higher_is_better: bool
    unit: str
    newest: bool
    train_rows: int | None
    spec: TaskSpec | None = field(compare=False)
    external: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """``name@v<version>``."""
        return f"{self.name}@v{self.version}"

    @property
    def slug(self) -> str:
        """The label in file names and addresses."""
        return self.label.replace("/", "__")

    @property
    def direction(self) -> Direction:
        """``max`` or ``min``."""
        return "max" if self.higher_is_better else "min"

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The smallest and the largest score; None where there is none."""
        return kinds.metrics()[self.metric].bounds if self.metric in kinds.metrics() else (None, None)

    @property
    def also(self) -> tuple[str, ...]:
        """Metrics that rank it a second time."""
        named = () if self.spec is None else self.spec.score.metrics
        return tuple(name for name in named if name != self.metric and kinds.metrics()[name].ranks)

    @property
    def offered(self) -> tuple[str, ...]:
        """Metrics that have a column beside the primary one's, and no ranks."""
        named = () if self.spec is None else self.spec.score.metrics
        return tuple(name for name in named if name != self.metric and kinds.metrics()[name].column)

    @property
    def points(self) -> str:
        """Unit of a difference."""
        return "pt" if self.unit == "%" else self.unit


@dataclass(frozen=True)
class Entry:
    """A cell with its statistics, and what of it the board alone needs.

    Attributes:
        result: the cell as it was built.
        params, selection, test_items: of its first run: hyper-parameters, which epoch is scored, rows scored.
        gap: how much of the way from plain to the teacher it goes, None where that has no sense.
        energy_kwh: of all stages, mean over its runs; None where one has no trusted figure.
        deploy: row of the deploy table of the run that its costs are quoted from.
        matched: score of plain trained for the same recipe cost, mean over its seeds; matched_runs: its run ids.
        also: metric to score by seed, of the metrics that rank the task a second time or have a column.
        external: external test set to score by seed.
        apart: why it is not ranked, "" where nothing forbids it.
        lost: seed to why it has no score, of a row that stands apart for seeds that the others of its table have.
        elsewhere: the processor that its costs were measured on, where that of most rows beside it is another: they are
            shown, and never set against costs measured there.
        caution: what the method's card says of its number on the task.
    """

    result: Result
    task: TaskVersion
    params: Mapping[str, Any]
    selection: str
    test_items: int
    gap: Gap | None
    energy_kwh: float | None
    deploy: IndexRow | None
    matched: CellStat | None
    matched_runs: Mapping[int, str]
    also: Mapping[str, Mapping[int, float]]
    external: Mapping[str, Mapping[int, float]]
    apart: str
    lost: Mapping[int, Missing] = field(default_factory=dict)
    elsewhere: str = ""
    caution: str = ""

    @property
    def processor(self) -> str:
        """The model of the processor that its costs were measured on."""
        return self.result.record.environment.cpu

    @property
    def cell(self) -> Cell:
        """Its row of ``v_cell``."""
        return self.result.cell

    @property
    def method(self) -> str:
        """The name that it is ranked under."""
        name: str = self.cell["method"]
        return name

    @property
    def device(self) -> str:
        """Its device class."""
        name: str = self.cell["device_class"]
        return name

    @property
    def ruleset(self) -> str:
        """By which hyper-parameters it is compared."""
        name: str = self.cell["ruleset"]
        return name

    @property
    def place(self) -> str:
        """What it is compared within beside its task: :func:`place_of`."""
        return place_of(self.device, self.ruleset)

    @property
    def vs_baseline(self) -> PairedDelta | None:
        """Paired difference to the task's baseline; None where there is no partner or the cell is the baseline."""
        return self.result.deltas[self.cell["baseline"]]

    @property
    def vs_plain(self) -> PairedDelta | None:
        """Paired difference to plain, as :attr:`vs_baseline`."""
        return self.result.deltas[PLAIN]

    @property
    def data(self) -> str:
        """Name of the rows."""
        return self.cell["data"] or ""

    @property
    def rows(self) -> tuple[str, str]:
        """Digests of the rows scored, and of all with normalisation and size ("" where a record does not keep it)."""
        return self.cell["test_sha256"] or "", self.cell["data_sha256"] or ""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Settings that are not the method's and the task's own, of a custom cell, by the key that sets them."""
        return self.result.overrides if self.cell["custom"] else {}

    @property
    def recipe_ratio(self) -> float | None:
        """Recipe cost over plain's."""
        return self.result.totals.ratio("recipe")

    @property
    def why_apart(self) -> str:
        """``apart`` with the settings that were overridden."""
        return ": ".join(filter(None, [self.apart, ", ".join(as_words(self.overrides))]))

    @property
    def is_baseline(self) -> bool:
        """Whether it is what the others are compared with."""
        return self.method == self.task.baseline and not self.custom

    @property
    def custom(self) -> bool:
        """Whether settings were overridden: then not even plain is a reference."""
        return self.apart == CUSTOM


def tasks(source: Source, catalogue: Catalogue) -> dict[tuple[str, int], TaskVersion]:
    """Task versions that occur in records (custom ones apart) or are registered, by name and version."""
    seen: dict[tuple[str, int], IndexRow] = {}  # of runs on rows that are not the task's no task is described
    for row in sorted(source.runs.values(), key=lambda r: (r["custom"], not r["ranked"], r["created_at"], r["run_id"])):
        seen.setdefault((row["task"], row["task_version"]), row)
    newest: dict[str, int] = {}
    registered = {(spec.name, spec.version): spec for spec in catalogue.tasks.values()}
    for name, version in [*seen, *registered]:
        newest[name] = max(version, newest.get(name, 0))
    return {
        key: _task(key, seen.get(key), registered.get(key), newest[key[0]], source)
        for key in sorted({*seen, *registered})
    }


def _below_floor(source: Source, key: tuple[str, int], metric: str) -> str:
    """Why a task tells nothing although its file ranks it: plain is not above its metric's floor; "" where it is."""
    if (key, metric) not in source.floors:
        return ""
    score, floor = source.floors[key, metric]
    better = score > floor if kinds.metrics()[metric].higher_is_better else score < floor
    return "" if better else f"plain reaches {score:.2f}, no better than {kinds.metrics()[metric].floor}, {floor:.2f}"


def _task(
    key: tuple[str, int], row: IndexRow | None, spec: TaskSpec | None, newest: int, source: Source
) -> TaskVersion:
    if row is not None:
        kind, suite, ranked, baseline = row["kind"], row["suite"], row["ranked"], row["baseline"]
        metric, higher, unit = row["metric"], row["higher_is_better"], row["unit"]
    else:
        assert spec is not None
        kind, suite, ranked, baseline = spec.kind, spec.suite, spec.ranked, spec.baseline
        metric, higher = spec.score.primary, spec.score.higher_is_better
        unit = kinds.metrics()[metric].unit or spec.score.unit
    why_not = (spec.unranked_because or "") if spec else ""
    if ranked and (below := _below_floor(source, key, metric)):
        ranked, why_not = False, below
    return TaskVersion(
        name=key[0],
        version=key[1],
        title=spec.title if spec else key[0],
        kind=kind,
        suite=suite,
        ranked=ranked,
        unranked_because=why_not,
        baseline=baseline,
        metric=metric,
        higher_is_better=higher,
        unit=unit,
        newest=key[1] == newest,
        train_rows=source.data_rows.get(key),
        spec=spec,
        external={name: there.about for name, there in source.external.get(key, {}).items()},
    )


def entries(source: Source, catalogue: Catalogue, known: Mapping[tuple[str, int], TaskVersion]) -> list[Entry]:
    """Every cell of the index, in the index's order."""
    verified = any(row["level"] > 0 for row in source.runs.values())
    return [
        _entry(source, catalogue, result, known[result.cell["task"], result.cell["task_version"]], verified)
        for result in source.results
    ]


def _entry(source: Source, catalogue: Catalogue, result: Result, task: TaskVersion, verified: bool) -> Entry:
    cell, plain, matched = result.cell, result.theirs[PLAIN], result.matched
    first = source.runs[cell["run_ids"][0]]
    matched_scores = dict(zip(matched["seeds"], matched["scores"], strict=True)) if matched else {}
    method = cell["method"]
    return Entry(
        result=result,
        task=task,
        params=source.settings[cell["run_ids"][0]]["params"],
        selection=first["selection"],
        test_items=first["test_items"],
        gap=gap_recovered(result.scores, plain, result.teacher, task.direction) if plain and method != PLAIN else None,
        energy_kwh=_energy(source, cell["run_ids"]),
        deploy=source.deploy.get(result.record.run_id),
        matched=clipped(summarise(matched_scores), *task.bounds) if matched else None,
        matched_runs=dict(zip(matched["seeds"], matched["run_ids"], strict=True)) if matched else {},
        also={
            metric: {seed: source.also[metric][run] for seed, run in result.runs.items() if run in source.also[metric]}
            for metric in (*task.also, *task.offered)
            if metric in source.also
        },
        external={
            name: {seed: there.scores[run] for seed, run in result.runs.items() if run in there.scores}
            for name, there in source.external.get((task.name, task.version), {}).items()
        },
        apart=_apart(result, catalogue, verified, task.ranked),
        caution=catalogue.caution(method, task.name),
    )


def _apart(result: Result, catalogue: Catalogue, verified: bool, ranked: bool) -> str:
    cell = result.cell
    parity = catalogue.parity(cell["method"].partition("@")[0] if cell["matched_method"] else cell["method"])
    rules = [
        (cell["custom"], CUSTOM),
        (cell["smoke"], SMOKE),
        (cell["matched_method"] is not None, MATCHED),
        (not cell["current"], "superseded"),
        (cell["own_protocol"], "own protocol"),
        (ranked and not cell["ranked"], OTHER_DATA),
        (parity == "unknown", NO_CARD),
        (parity == "unverified", UNVERIFIED),
        (parity == "reconstruction", RECONSTRUCTION),
        (cell["verification_failed"], "failed verification"),
        (verified and cell["level"] == 0, "not validated"),
        (bool(result.at_chance), NOT_LEARNED),
    ]
    return next((word for broken, word in rules if broken), "")


def _energy(source: Source, runs: Sequence[str]) -> float | None:
    own = [
        [stage["energy_kwh"] for stage in source.stages.get(run, []) if stage["ledger"] != EVALUATION] or [None]
        for run in runs
    ]
    known = [kwh for stages in own for kwh in stages if kwh is not None]
    return sum(known) / len(runs) if len(known) == sum(map(len, own)) else None
