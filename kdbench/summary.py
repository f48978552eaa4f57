"""Cells as people compare them: score, differences to baseline and plain, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdbench.errors import UserError
from kdbench.ledger import Totals, totals
from kdbench.metrics import METRICS
from kdbench.record import Record
from kdbench.registry import PLAIN
from kdbench.stats import CellStat, PairedDelta, paired_delta, summarise
from kdbench.store import Store


@dataclass(frozen=True)
class Row:
    """One method on one task and device class.

    Attributes:
        score: over seeds, in the task's unit; ``scores`` by seed.
        to_baseline, to_plain: seed-paired differences, positive where the method is better; None without a partner.
        cost: the overhead block's columns, None when it was not measured; ``totals`` the device-hours of one run.
        item_noise: standard error from the number of test items alone, in points; None where the score is no share.
        state: ``ok``, or why there is no score.
    """

    method: str
    task: str
    version: int
    device_class: str
    metric: str
    unit: str
    higher_is_better: bool
    baseline: str
    score: CellStat | None
    to_baseline: PairedDelta | None
    to_plain: PairedDelta | None
    cost: dict[str, Any] | None
    run_ids: tuple[str, ...]
    scores: Mapping[int, float] = field(default_factory=dict)
    totals: Totals | None = None
    item_noise: float | None = None
    marks: tuple[str, ...] = ()
    state: str = "ok"


def rows(store: Store, **where: Any) -> list[Row]:
    """All current cells of an index, and the combinations that gave no score, with their reason.

    Args:
        where: columns of the cells to keep, e.g. ``task="digits"``.
    """
    cells = [cell for cell in store.cells(**where) if cell["current"]]
    groups: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for cell in cells:
        if not cell["custom"]:
            groups.setdefault(_group(cell), {})[cell["method"]] = _by_seed(cell)
    heads = [_head(cell) for cell in cells]
    costs, taken = store.overheads(heads), store.records(heads)
    found = [_row(cell, groups.get(_group(cell), {}), costs, taken) for cell in cells]
    have = {(row.method, row.task, row.version, row.device_class) for row in found}
    keys = {k: v for k, v in where.items() if k in ("method", "task", "task_version", "device_class")}
    for gap in store.coverage(**keys):
        key = (gap["method"], gap["task"], gap["task_version"], gap["device_class"])
        if key not in have and not gap["ok"]:
            state = "not applicable" if gap["not_applicable"] else "withdrawn" if gap["withdrawn"] else "failed"
            found.append(_empty(gap, f"{state}: {gap['last_error']}" if gap["last_error"] else state))
    return found


def _group(cell: dict[str, Any]) -> tuple[Any, ...]:
    return (cell["task"], cell["task_version"], cell["device_class"], cell["engine_version"], cell["smoke"])


def _by_seed(cell: dict[str, Any]) -> dict[int, float]:
    return dict(zip(cell["seeds"], cell["scores"], strict=True))


def _head(cell: dict[str, Any]) -> str:
    """The run that a cell's cost is read from."""
    return str(cell["overhead_run_id"] or cell["run_ids"][0])


def _row(
    cell: dict[str, Any],
    group: dict[str, dict[int, float]],
    costs: Mapping[str, dict[str, Any]],
    taken: Mapping[str, Record],
) -> Row:
    own = _by_seed(cell)
    direction: Literal["max", "min"] = "max" if cell["higher_is_better"] else "min"

    def against(reference: str) -> PairedDelta | None:
        other = group.get(reference)
        if other is None or (reference == cell["method"] and not cell["custom"]) or not set(own) & set(other):
            return None
        return paired_delta(own, other, direction)

    cost = costs.get(_head(cell))
    record = taken.get(_head(cell))
    stat = summarise(own)
    items = record.metrics.test_items if record is not None and record.metrics is not None else None
    marks = [name for name in ("custom", "smoke", "own_protocol") if cell[name]]
    return Row(
        method=cell["method"],
        task=cell["task"],
        version=cell["task_version"],
        device_class=cell["device_class"],
        metric=cell["metric"],
        unit=cell["unit"],
        higher_is_better=cell["higher_is_better"],
        baseline=cell["baseline"],
        score=stat,
        to_baseline=against(cell["baseline"]),
        to_plain=against(PLAIN),
        cost=cost if cost and cost.get("step_ratio") is not None else None,
        run_ids=tuple(cell["run_ids"]),
        scores=own,
        totals=totals(record) if record is not None else None,
        item_noise=METRICS[cell["metric"]].noise(stat.mean, items) if cell["metric"] in METRICS else None,
        marks=tuple(marks),
    )


def _empty(gap: dict[str, Any], state: str) -> Row:
    return Row(
        gap["method"], gap["task"], gap["task_version"], gap["device_class"], "", "", True, "",
        None, None, None, None, (), state=state,
    )  # fmt: skip


def in_order(found: list[Row], key: str) -> list[Row]:
    """Rows best or cheapest first, those without the figure last; ``task`` keeps the index's order.

    Args:
        key: ``task``, ``score`` or ``delta`` (within each task), or a column of the overhead.
    """

    def figure(row: Row) -> float | None:
        if key == "score":
            sign = -1.0 if row.higher_is_better else 1.0
            return None if row.score is None else sign * row.score.mean
        if key == "delta":
            return None if row.to_baseline is None else -row.to_baseline.mean
        value = (row.cost or {}).get(key)
        return None if value is None else float(value)

    def place(row: Row) -> tuple[str, bool, float]:
        value = figure(row)
        return (row.task if key in ("score", "delta") else "", value is None, value or 0.0)

    return found if key == "task" else sorted(found, key=place)


def step_ratios(index: Path) -> dict[str, float]:
    """Median over all measured cells of each method's step time over plain's; nothing when the index cannot be read."""
    try:
        with Store(index, read_only=True, wait_s=0.0) as store:
            found = store.query(
                "SELECT method, median(step_ratio) AS ratio FROM runs JOIN overhead USING (run_id)"
                " WHERE NOT custom AND NOT smoke AND step_ratio IS NOT NULL GROUP BY method"
            )
    except UserError:
        return {}
    return {row["method"]: row["ratio"] for row in found}
