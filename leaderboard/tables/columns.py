"""The columns of a task's table: heading, unit, definition, and the cell they make of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdbench import kinds
from kdbench.leaderboard.draw.numbers import si, significant
from kdbench.leaderboard.model.entries import Entry, TaskVersion
from kdbench.leaderboard.tables import cells, costs
from kdbench.leaderboard.tables.cells import Context, TableCell
from kdbench.leaderboard.tables.table import Head
from kdbench.records.schema.overhead import QUANTITIES


@dataclass(frozen=True)
class Column:
    """A column. ``unit`` may be empty; ``about`` defines it; ``default`` is shown before anybody chose columns."""

    key: str
    head: Callable[[TaskVersion], str]
    unit: Callable[[TaskVersion], str]
    group: str
    about: str
    make: Callable[[Entry, Context], TableCell]
    default: bool = False
    numeric: bool = True


def _plain_head(word: str) -> Callable[[TaskVersion], str]:
    return lambda task: word


def _score_head(task: TaskVersion) -> str:
    return f"{cells.metric_word(task.metric)} {'↑' if task.higher_is_better else '↓'}"


def _column(
    key: str,
    head: str,
    unit: str,
    group: str,
    about: str,
    make: Callable[[Entry, Context], TableCell],
    *,
    default: bool = False,
    numeric: bool = True,
) -> Column:
    return Column(key, _plain_head(head), _plain_head(unit), group, about, make, default, numeric)


def _quantity(
    key: str,
    field: str,
    *,
    head: str = "",
    unit: str | None = None,
    make: Callable[[Entry, Context], TableCell] | None = None,
    ratio: bool = False,
    default: bool = False,
) -> Column:
    """The column of a measured quantity, headed as the quantity says unless it is told otherwise."""
    said = QUANTITIES[field]
    made = make or costs.measured(field, si if said.si else significant, ratio=ratio)
    headed = said.column_unit if unit is None else unit
    return _column(key, head or said.head, headed, "Overhead", said.about, made, default=default)


COLUMNS: tuple[Column, ...] = (
    _column(
        "rank",
        "Rank",
        "",
        "Quality",
        "Every place the method could hold: 1 + the methods separated above it, to the "
        "number of methods less those separated below it. Methods that share places are not told apart.",
        cells.rank_cell,
        default=True,
    ),
    _column(
        "method",
        "Method",
        "",
        "Quality",
        "Name of the card, or of its variant.",
        cells.method_cell,
        default=True,
        numeric=False,
    ),
    _column(
        "pair",
        "Student ← teacher",
        "",
        "Quality",
        "Architectures of the trained and the teaching network.",
        cells.pair_cell,
        numeric=False,
    ),
    Column(
        "score",
        _score_head,
        lambda task: task.unit,
        "Quality",
        "Primary metric of the deployed student after the last epoch: "
        "mean over seeds ± half the 95 % t-interval. One dot a seed, all rows on one scale. It speaks of "
        "this recipe on this "
        "test set with this one teacher: neither the test set’s noise nor the teacher’s seed is in it.",
        cells.score_cell,
        True,
    ),
    Column(
        "vs_baseline",
        lambda task: f"Δ to {task.baseline}",
        lambda task: task.points,
        "Quality",
        "Mean over seeds of the "
        "difference to the baseline with the same seed, and its 95 % t-interval. Positive is better, whatever "
        "the metric’s direction; ▲ and ▼ hold over all rows of the table together, with 5 % of them false on average.",
        cells.vs_baseline_cell,
        True,
    ),
    Column(
        "vs_plain",
        _plain_head("Δ to plain"),
        lambda task: task.points,
        "Quality",
        "The same against the student trained without distillation.",
        cells.vs_plain_cell,
    ),
    Column(
        "vs_matched",
        _plain_head("Δ to matched plain"),
        lambda task: task.points,
        "Quality",
        "The same against plain trained for as long as the method’s whole recipe costs.",
        cells.vs_matched_cell,
    ),
    _column(
        "gap",
        "Gap recovered",
        "%",
        "Quality",
        "(student − plain) / (teacher − plain) with Fieller’s 95 % interval; shown only "
        "where teacher − plain is at least 1 point, 4 standard errors and separated from 0.",
        cells.gap_cell,
    ),
    _column(
        "teacher",
        "Teacher",
        "",
        "Quality",
        "Primary metric of what the student learnt from; of a teacher that the method itself trained on, before and "
        "after, and what that took.",
        cells.teacher_cell,
    ),
    _quantity("step_ratio", "step_ratio", default=True, make=costs.ratio_cell),
    _quantity("step_ms", "step_ms", ratio=True),
    _quantity("throughput", "throughput_samples_s"),
    _quantity("memory", "peak_alloc_mib", default=True, ratio=True),
    _quantity("flops", "flops_fwd_bwd", head="Train FLOPs/sample", default=True, ratio=True),
    _quantity("train_only", "train_only_params", head="Train-only params", unit="", default=True),
    _column(
        "recipe",
        "Recipe cost",
        "device-h",
        "Overhead",
        "All stages of the method, artefacts included, without the teacher’s training, and as a multiple of plain’s: "
        "steps times the measured step time (projected) where there is one, else as the run took.",
        costs.recipe_cell,
        default=True,
    ),
    _column("full", "Full cost", "device-h", "Overhead", "Recipe cost and the teacher’s training.", costs.full_cell),
    _column(
        "energy",
        "Energy",
        "kWh",
        "Overhead",
        "Energy of all stages; only where a counter could be trusted.",
        costs.energy_cell,
    ),
    _column(
        "deploy_params",
        "Deployed params",
        "",
        "Deployment",
        "Parameters of the network that is kept.",
        costs.deployed("params", si),
    ),
    _column(
        "deploy_gflops",
        "Deployed FLOPs",
        "GFLOP",
        "Deployment",
        "Counted forward operations of the kept network on one sample of its own input: small pictures cost less.",
        costs.deployed("gflops"),
    ),
    _column(
        "latency",
        "Latency b = 1",
        "ms",
        "Deployment",
        "Median forward time of the kept network, one sample, on the processor that the row’s costs were measured on.",
        costs.deployed("latency_ms_b1"),
    ),
    _column(
        "device",
        "Device class",
        "",
        "Provenance",
        "Device, number format and count; rows of different classes never meet.",
        cells.device_cell,
        numeric=False,
    ),
    _column(
        "verified",
        "Verified",
        "",
        "Provenance",
        "How far maintainers checked the record: 0 self-reported, 1 validated, 2 checkpoint "
        "re-evaluated, 3 re-run, 4 re-run on another device class. The lowest of the cell’s runs.",
        cells.verified_cell,
    ),
    _column(
        "runs",
        "Runs",
        "",
        "Provenance",
        "The record of every seed: configuration, environment, curve, command.",
        cells.runs_cell,
        numeric=False,
    ),
)


def columns_of(task: TaskVersion) -> tuple[Column, ...]:
    """Those of every task, two for each metric that ranks it a second time, one for each other that has a column, and
    one for each external test set."""
    more = [column for metric in task.also for column in _of_second(metric)]
    more += [_offered(metric) for metric in task.offered]
    more += [_external(name, words) for name, words in task.external.items()]
    place = next(i for i, column in enumerate(COLUMNS) if column.key == "vs_baseline")
    return (*COLUMNS[:place], *more, *COLUMNS[place:])


def _offered(metric: str) -> Column:
    known, word = kinds.metrics()[metric], cells.metric_word(metric)
    return Column(
        f"also-{metric}",
        _plain_head(f"{word} {'↑' if known.higher_is_better else '↓'}"),
        lambda task: known.unit or task.unit,
        "Quality",
        f"{known.about[0].upper()}{known.about[1:]}: mean over the seeds that have it.",
        cells.offered_cell(metric),
        False,
    )


def _external(name: str, words: str) -> Column:
    return Column(
        f"external-{name}",
        lambda task: f"{cells.metric_word(task.metric)} on {name} {'↑' if task.higher_is_better else '↓'}",
        lambda task: task.unit,
        "Quality",
        f"On rows from elsewhere ({words}): mean over seeds ± half the 95 % t-interval. It ranks nothing.",
        cells.external_cell(name),
        False,
    )


def _of_second(metric: str) -> tuple[Column, Column]:
    known, word = kinds.metrics()[metric], cells.metric_word(metric)
    return (
        Column(
            f"also-{metric}",
            _plain_head(f"{word} {'↑' if known.higher_is_better else '↓'}"),
            lambda task: known.unit or task.unit,
            "Quality",
            f"{known.about[0].upper()}{known.about[1:]}: mean over seeds ± half the 95 % t-interval.",
            cells.second_score_cell(metric),
            True,
        ),
        Column(
            f"rank-{metric}",
            _plain_head(f"Rank by {word}"),
            _plain_head(""),
            "Quality",
            f"Every place the method could hold by {word}, as Rank is by the primary metric. Rows are in the order of "
            "the primary metric until this column is sorted by.",
            cells.second_rank_cell(metric),
            True,
        ),
    )


def generic_heads() -> tuple[Head, ...]:
    """All columns, as they are called where no task is at hand."""
    return tuple(head(column, _ANY_TASK) for column in COLUMNS)


def head(column: Column, task: TaskVersion) -> Head:
    """A column as the table of a task prints it."""
    return Head(
        column.key, column.head(task), column.unit(task), column.group, column.about, column.default, column.numeric
    )


_ANY_TASK = TaskVersion(
    name="any",
    version=1,
    title="",
    kind="",
    suite="",
    ranked=True,
    unranked_because="",
    baseline="baseline",
    metric="score",
    higher_is_better=True,
    unit="",
    newest=True,
    train_rows=None,
    spec=None,
)
