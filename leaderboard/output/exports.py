"""Downloads: the board's numbers as CSV, JSON, Parquet, LaTeX and BibTeX, with stable addresses and checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdbench.base.files import sha256_file
from kdbench.index.csv import to_csv
from kdbench.index.store import Store
from kdbench.leaderboard.draw.numbers import MINUS, digits_for, plus_minus
from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.model.entries import Entry
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.model.ratios import step_ratio
from kdbench.leaderboard.output.citation import datacite
from kdbench.leaderboard.output.render import Site
from kdbench.leaderboard.tables.cells import metric_word
from kdbench.leaderboard.views.overview import coverage_tables
from kdbench.records.files import json_schema
from kdbench.specs.overrides import as_words
from kdbench.specs.registry import PLAIN
from kdbench.stats import CellStat

_MEASURED = (
    "step_ms", "throughput_samples_s", "peak_alloc_mib", "plain_peak_alloc_mib", "flops_fwd_bwd", "train_only_params",
)  # fmt: skip
"""Fields of the overhead block that a row of the downloads holds."""
_TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "°": r"$^\circ$",
        "\n": " ",
    }
)


def write_exports(board: Board, store: Store, folder: Path, site: Site) -> None:
    """Fill ``folder`` (the site's ``data/``), except for the records, which lie under ``runs/``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = leaderboard_rows(board)
    store.export(folder)
    (folder / "leaderboard.csv").write_text(to_csv([_flat(row) for row in rows], _columns()), encoding="utf-8")
    about = {
        "kdbench": site.kdbench,
        "statistics_version": site.statistics,
        "snapshot": site.snapshot_id,
        "licence": "CC-BY-4.0",
    }
    write_json(folder / "leaderboard.json", {**about, "rows": rows})
    write_json(folder / "datacite.json", datacite(board, site))
    write_json(folder / "schema" / "record-v1.json", json_schema())
    (folder / "citations.bib").write_text(citations(board), encoding="utf-8")
    for task in board.tasks:
        boards = [one for one in board.task_boards if one.task == task]
        tables = [latex(one, site.snapshot_id) for one in boards if one.ranked]
        if tables:
            path = folder / "tables" / f"{task.slug}.tex"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(tables), encoding="utf-8")
    _write_api(board, folder / "api" / "v1", rows, about)


def write_checksums(folder: Path) -> None:
    """``SHA256SUMS`` over all files below ``folder``, in the form ``sha256sum --check`` reads."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """One value as readable JSON with sorted keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def leaderboard_rows(board: Board) -> list[dict[str, Any]]:
    """Every cell as plain values: ranks, score, differences, costs, runs."""
    return [_row(one, row) for one in board.task_boards for row in (*one.ranked, *one.apart)]


def _row(one: TaskBoard, row: Entry) -> dict[str, Any]:
    rank = one.ranks.get(row.method, "") if not row.apart else ""
    first, _, last = rank.partition("-")
    over, deploy, ratio, gap = row.result.cost or {}, row.deploy or {}, step_ratio(row), row.gap
    deltas = {
        f"{name}_{end}": getattr(delta, end) if delta is not None else None
        for name, delta in (
            ("delta_baseline", row.vs_baseline),
            ("delta_plain", row.vs_plain),
            ("delta_matched", row.result.to_matched),
        )
        for end in ("mean", "lo", "hi", "n")
    }
    return {
        "suite": one.task.suite,
        "task": one.task.name,
        "task_version": one.task.version,
        "device_class": one.device,
        "ruleset": one.ruleset,
        "method": row.method,
        "adapter_version": row.cell["adapter_version"],
        "engine_version": row.cell["engine_version"],
        "data": row.data,
        "test_sha256": row.rows[0] or None,
        "data_sha256": row.rows[1] or None,
        "rank_first": int(first) if first else None,
        "rank_last": int(last or first) if first else None,
        "apart": row.apart,
        "overrides": " ".join(as_words(row.overrides)),
        "metric": one.task.metric,
        "unit": one.task.unit,
        "higher_is_better": one.task.higher_is_better,
        "baseline": one.task.baseline,
        "params_source": row.cell["params_source"],
        "n": row.result.stat.n,
        "mean": row.result.stat.mean,
        "sd": row.result.stat.sd,
        "lo": row.result.stat.lo,
        "hi": row.result.stat.hi,
        **deltas,
        "gap_recovered": gap.value if gap else None,
        "step_ratio": ratio[0] if ratio else None,
        "step_ratio_lo": over.get("lo") if row.method != PLAIN else None,
        "step_ratio_hi": over.get("hi") if row.method != PLAIN else None,
        "overhead_mode": over.get("mode"),
        "cost_processor": row.processor if over else None,
        **{field: over.get(field) for field in _MEASURED},
        "student_device_h": row.result.totals.student_h,
        "recipe_device_h": row.result.totals.recipe_h,
        "full_device_h": row.result.totals.full_h,
        "search_device_h": row.result.totals.search_h,
        "cost_basis": row.result.totals.basis,
        "recipe_ratio": row.recipe_ratio,
        "energy_kwh": row.energy_kwh,
        "deploy_params": deploy.get("params"),
        "deploy_gflops": deploy.get("gflops"),
        "deploy_latency_ms_b1": deploy.get("latency_ms_b1"),
        "level": row.cell["level"],
        "failed_check": row.cell["verification_failed"],
        "scores": {str(seed): value for seed, value in row.result.scores.items()},
        "runs": list(row.result.runs.values()),
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    scores = " ".join(f"{seed}:{value}" for seed, value in row["scores"].items())
    return {**row, "scores": scores, "runs": " ".join(row["runs"])}


def _columns() -> list[str]:
    deltas = [
        f"{name}_{end}"
        for name in ("delta_baseline", "delta_plain", "delta_matched")
        for end in ("mean", "lo", "hi", "n")
    ]
    return [
        "suite",
        "task",
        "task_version",
        "device_class",
        "ruleset",
        "method",
        "adapter_version",
        "engine_version",
        "data",
        "test_sha256",
        "data_sha256",
        "rank_first",
        "rank_last",
        "apart",
        "overrides",
        "metric",
        "unit",
        "higher_is_better",
        "baseline",
        "params_source",
        "n",
        "mean",
        "sd",
        "lo",
        "hi",
        *deltas,
        "gap_recovered",
        "step_ratio",
        "step_ratio_lo",
        "step_ratio_hi",
        "overhead_mode",
        "cost_processor",
        *_MEASURED,
        "student_device_h",
        "recipe_device_h",
        "full_device_h",
        "search_device_h",
        "cost_basis",
        "recipe_ratio",
        "energy_kwh",
        "deploy_params",
        "deploy_gflops",
        "deploy_latency_ms_b1",
        "level",
        "failed_check",
        "scores",
        "runs",
    ]


def tex(text: str) -> str:
    """Text that LaTeX takes literally."""
    return text.translate(_TEX)


def latex(one: TaskBoard, snapshot: str) -> str:
    """A ``longtable`` of the ranked rows of a task; bold only where the first place is separated."""
    task = one.task
    digits = digits_for(task.unit, [value for row in one.ranked for value in row.result.scores.values()])
    arrow = r"$\uparrow$" if task.higher_is_better else r"$\downarrow$"
    unit = f", {tex(task.unit)}" if task.unit else ""
    points = f", {tex(task.points)}" if task.points else ""
    head = (
        r"\toprule",
        f"Rank & Method & {tex(metric_word(task.metric))} {arrow}{unit} & "
        f"$\\Delta$ to {tex(task.baseline)}{points} & "
        r"\shortstack[r]{Step time,\\$\times$ plain} & \shortstack[r]{Recipe cost,\\$\times$ plain} \\",
        r"\midrule",
    )
    seeds = ", ".join(map(str, one.seeds))
    caption = (
        f"{tex(task.label)} on {tex(one.place)}: mean over seeds {seeds} with half the 95\\,\\% $t$-interval; "
        f"$\\Delta$ is seed-paired with its 95\\,\\% interval. kdbench snapshot \\texttt{{{snapshot}}}."
    )
    lines = [
        "% needs \\usepackage{booktabs,longtable}",
        r"{\footnotesize\setlength{\tabcolsep}{2pt}",
        r"\begin{longtable}{llrrrr}",
        f"\\caption{{{caption}}}\\\\",
        *(*head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot"),
    ]
    for row in one.ranked:
        score = _plus_minus(row.result.stat, digits)
        if one.ranks.get(row.method) == "1":
            score = rf"\textbf{{{score}}}"
        delta = "reference" if row.is_baseline else _delta(row, digits)
        ratio = step_ratio(row)
        cells = [
            one.ranks.get(row.method, "--").replace("-", "--"),
            tex(row.method),
            score,
            delta,
            f"{ratio[0]:.2f}" if ratio else "--",
            f"{row.recipe_ratio:.2f}" if row.recipe_ratio else "--",
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\end{longtable}}", ""])


def _plus_minus(stat: CellStat, digits: int) -> str:
    return plus_minus(stat.mean, stat.lo, stat.hi, digits).replace(MINUS, "$-$").replace("±", r"$\pm$")


def _delta(row: Entry, digits: int) -> str:
    delta = row.vs_baseline
    if delta is None:
        return "--"
    mean = f"${delta.mean:+.{digits}f}$"
    if delta.lo is None or delta.hi is None:
        return mean
    return f"{mean} [${delta.lo:+.{digits}f}$, ${delta.hi:+.{digits}f}$]"


def citations(board: Board) -> str:
    """BibTeX of every registered method's paper, each once, and of kdbench."""
    entries = {ref.card.bibkey: ref.card.bibtex() for ref in board.catalogue.methods.values()}
    return "\n\n".join(entries[key] for key in sorted(entries)) + "\n"


def _write_api(board: Board, folder: Path, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """JSON at addresses that stay: lists, and a file a task and a method."""
    tasks = [
        {
            "name": t.name,
            "version": t.version,
            "slug": t.slug,
            "title": t.title,
            "kind": t.kind,
            "suite": t.suite,
            "ranked": t.ranked,
            "baseline": t.baseline,
            "metric": t.metric,
            "unit": t.unit,
            "higher_is_better": t.higher_is_better,
            "newest": t.newest,
        }
        for t in board.tasks
    ]
    methods = [{"name": name, "parity": board.catalogue.parity(name)} for name in board.methods]
    runs = [
        {
            "run_id": run_id,
            "method": run["method"],
            "task": run["task"],
            "task_version": run["task_version"],
            "seed": run["seed"],
            "device_class": run["device_class"],
            "ruleset": run["ruleset"],
            "status": run["status"],
            "score": run["score"],
            "level": run["level"],
            "sha256": run["record_sha256"],
        }
        for run_id, run in board.source.runs.items()
    ]
    write_json(folder / "tasks.json", {**about, "tasks": tasks})
    write_json(folder / "methods.json", {**about, "methods": methods})
    write_json(folder / "runs.json", {**about, "runs": runs})
    write_json(folder / "leaderboard.json", {**about, "rows": rows})
    coverage = [
        {"device_class": table.device, "method": method, "task": task.label, "state": cell.kind, "why": cell.why}
        for table in coverage_tables(board)
        for method, cells in table.rows
        for task, cell in zip(table.tasks, cells, strict=True)
    ]
    write_json(folder / "coverage.json", {**about, "cells": coverage})
    for task in board.tasks:
        mine = [row for row in rows if (row["task"], row["task_version"]) == (task.name, task.version)]
        write_json(folder / "tasks" / f"{task.slug}.json", {**about, "rows": mine})
    for name in board.methods:
        write_json(
            folder / "methods" / f"{name}.json", {**about, "rows": [row for row in rows if row["method"] == name]}
        )
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))
    write_json(folder / "index.json", {**about, "files": files})
