"""A run's page: everything its record holds, readable."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from markupsafe import Markup

from kdbench import kinds
from kdbench.base.fields import SEARCH
from kdbench.leaderboard.draw.charts import curve
from kdbench.leaderboard.draw.numbers import NONE, si, significant
from kdbench.leaderboard.model.source import IndexRow
from kdbench.leaderboard.tables.cells import LEVEL_MARKS, LEVELS, metric_word
from kdbench.leaderboard.views.run_overhead import Pairs, overhead_facts, timing_drawn, timing_pairs


def run_view(
    record: dict[str, Any],
    run: IndexRow,
    verifications: list[IndexRow],
    withdrawn: IndexRow | None,
    known: Collection[str],
    counted: IndexRow | None,
) -> dict[str, Any]:
    """What the template of a run's page needs.

    Args:
        record: the record's JSON form.
        run: its row of the index.
        known: ids of the runs on the board.
        counted: its row of the overhead table, None where nothing was measured.
    """
    task, over = record["task"], record["overhead"]
    measured = over if over["mode"] != "off" else None
    here = measured is not None and measured["measured_by"] == record["run_id"]
    return {
        "r": record,
        "name": run["method"],
        "slug": f"{task['name']}@v{task['version']}".replace("/", "__"),
        "headline": _headline(record, run),
        "marks": _marks(record, run, withdrawn),
        "provenance": _provenance(record),
        "metrics": _metrics(record),
        "best_on": (record["metrics"] or {}).get("best_selected_on") or "",
        "row_word": row_word(task["metric_primary"]),
        "no_rows": _no_rows(record),
        **_curves(record),
        "overhead": overhead_facts(measured, counted),
        "measured_by": measured["measured_by"] if measured and measured["measured_by"] in known and not here else "",
        "timing": timing_drawn(measured) if here else None,
        "pairs": timing_pairs(measured) if here else [],
        "stages": _stages(record),
        "nets": _nets(record),
        "deploy": _deploy(record),
        "settings": _json({"method": record["method"]["params"], "protocol": record["protocol"]}),
        "config": _json(record["provenance"]["config_resolved"]),
        "environment": _environment(record),
        "checks": [_check(row) for row in verifications],
        "cite": _cite(record, run),
    }


def _headline(record: dict[str, Any], run: IndexRow) -> str:
    task = record["task"]
    if run["score"] is None:
        return f"{record['status'].replace('_', ' ')} on {record['device_class']}"
    score = f"{significant(run['score'], 4)} {task['unit']}".strip()
    return f"{metric_word(task['metric_primary'])} {score} on {record['device_class']}"


def _marks(record: dict[str, Any], run: IndexRow, withdrawn: IndexRow | None) -> list[str]:
    words = []
    if withdrawn:
        words.append(f"Withdrawn on {withdrawn['date']:%Y-%m-%d}: {withdrawn['reason']}")
    if record["error"]:
        status = record["status"].replace("_", " ").capitalize()
        words.append(f"{status}: {record['error']['type']}: {record['error']['message']}")
    if record["custom"]:
        words.append("Custom settings: stored and shown, never ranked.")
    if record["smoke"]:
        words.append("A smoke run: shortened to see that everything works, never ranked.")
    if record["own_protocol"]:
        words.append("Own protocol: its paper trains longer or otherwise than the task; listed apart.")
    if record["search"] is not None:
        words.append(f"Ruleset {run['ruleset']}: hyper-parameters by a search of this size, compared with such alone.")
    if record["method"]["params"] and record["method"]["params_source"] == "default":
        words.append("Not tuned here: hyper-parameters are the card’s defaults, no value is published for this pair.")
    if record["provenance"]["dirty"] or not record["provenance"]["git_commit"]:
        words.append("Made from changed or unknown code: it can never be verified.")
    return words


def _provenance(record: dict[str, Any]) -> Pairs:
    p = record["provenance"]
    pairs = [
        ("Run", record["run_id"]),
        ("Specification", record["spec_hash"]),
        ("kdbench", p["kdbench_version"]),
        ("Commit", (p["git_commit"] or "unknown") + (" with changes" if p["dirty"] else "")),
        ("Engine version", str(record["engine_version"])),
        ("Adapter version", record["method"]["adapter_version"]),
        ("Started", record["created_at"]),
        ("Finished", record["finished_at"]),
        ("Licence", p["licence"]),
        ("Hyper-parameters from", record["method"]["params_source"].replace("_", " ")),
    ]
    return pairs + ([("Submitter", p["submitter"])] if p["submitter"] else [])


def _metrics(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    metrics = record["metrics"]
    if not metrics:
        return []
    best = metrics["best"] or {}
    return (
        [
            (name, significant(v, 5), significant(best[name], 5) if name in best else NONE)
            for name, v in metrics["last"].items()
        ]
        + [
            (f"{record['task']['metric_primary']} of {name}", significant(v, 5), NONE)
            for name, v in (metrics.get("classes") or {}).items()
        ]
        + [
            (f"{record['task']['metric_primary']} on {name}", significant(there["value"], 5), NONE)
            for name, there in (metrics.get("external") or {}).items()
        ]
    )


def row_word(metric: str) -> str:
    """What the file of values of test rows holds of a metric, in words."""
    known = kinds.metrics().get(metric)
    return "Right or wrong" if known is not None and known.share else metric_word(metric)


def _no_rows(record: dict[str, Any]) -> str:
    """Why a run keeps no value of each test row, "" where it names some or nothing is known of its metric."""
    metrics, primary = record["metrics"], record["task"]["metric_primary"]
    known = kinds.metrics().get(primary)
    if not metrics or known is None or metrics.get("items_sha256"):
        return ""
    if known.each is None:
        return f"{metric_word(primary)} gives no value of each test row, so none is kept."
    return "This run is from before runs kept what each test row scored."


def _curves(record: dict[str, Any]) -> dict[str, Any]:
    points, primary = record["curve"], record["task"]["metric_primary"]
    drawings: list[Markup] = []
    parts = _trainings(points)
    for number, part in enumerate(parts, 1):
        axis = "epoch" if part[0]["epoch"] < part[-1]["epoch"] else "step"
        which = f", training {number} of {len(parts)}" if len(parts) > 1 else ""
        for key, label, ys in (
            ("curve-val", metric_word(primary), [p["val"].get(primary) for p in part]),
            ("curve-loss", "training loss", [p["train_loss"] for p in part]),
        ):
            known = [(p[axis], y) for p, y in zip(part, ys, strict=True) if y is not None]
            if len(known) > 1:
                xs, values = zip(*known, strict=True)
                name = key if len(parts) == 1 else f"{key}-{number}"
                drawings.append(
                    curve(name, xs, values, title=f"{label} by {axis}{which}", label=f"{label}{which}", x_label=axis)
                )
    terms = sorted({name for p in points for name in p["losses"]})[:2]
    heads = ["Epoch", "Training loss", *terms, metric_word(primary), "Learning rate"]
    rows = [
        (
            p["epoch"],
            [
                _number(p["train_loss"]),
                *(_number(p["losses"].get(t)) for t in terms),
                _number(p["val"].get(primary)),
                f"{p['lr']:g}",
            ],
        )
        for p in points
    ]
    return {"curves": drawings, "curve_heads": heads, "curve_rows": rows}


def _trainings(points: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The points of one network after the other: a recipe of several stages begins anew at each."""
    parts: list[list[dict[str, Any]]] = []
    for point in points:
        last = parts[-1][-1] if parts else None
        if last is None or point["epoch"] < last["epoch"] or point["step"] <= last["step"]:
            parts.append([])
        parts[-1].append(point)
    return parts


def _number(value: float | None) -> str:
    return NONE if value is None else significant(value, 4)


def _stages(record: dict[str, Any]) -> list[tuple[str, ...]]:
    search = record["search"]
    hours = [] if search is None else [search["hours"]]
    searched = [("search", SEARCH.replace("_", " "), significant(h), "0", NONE, "measured", "yes") for h in hours]
    return searched + [
        (
            s["name"],
            s["ledger"].replace("_", " "),
            significant(s["device_h"]),
            f"{s['steps']:,}",
            _number(s["energy_kwh"]),
            s["basis"],
            "yes" if s["reusable"] else "no",
        )
        for s in record["stages"]
    ]


def _nets(record: dict[str, Any]) -> list[tuple[str, ...]]:
    models = record["models"]
    nets = [("student", models["student"]), *((f"teacher ({t['role']})", t) for t in models["teachers"])]
    nets += [(f"peer {i}", peer) for i, peer in enumerate(models["peers"], 1)]
    return [
        (
            role,
            net["arch"],
            si(net["params"]) if net["params"] else NONE,
            net["source"],
            _number(net["val_metric"])
            + (f" → {_number(net['trained_metric'])}" if net.get("trained_metric") is not None else ""),
            f"{net['weights_sha256'][:16]}…" if net["weights_sha256"] else NONE,
        )
        for role, net in nets
    ]


def _deploy(record: dict[str, Any]) -> Pairs:
    deploy = record["deploy"]
    if not deploy:
        return []
    same = "same graph and parameters as the plain student" if deploy["equals_plain"] else "not the plain student"
    pairs = [("Deployed network", f"{si(deploy['params'])} parameters, {same}")]
    optional = [
        ("Forward", "gflops", "GFLOP"),
        ("Latency, 1 sample", "latency_ms_b1", "ms"),
        ("Latency, 128 samples", "latency_ms_b128", "ms"),
        ("Size", "size_mib", "MiB"),
    ]
    return pairs + [
        (word, f"{significant(deploy[field])} {unit}") for word, field, unit in optional if deploy[field] is not None
    ]


def _environment(record: dict[str, Any]) -> Pairs:
    e = record["environment"]
    pairs = [
        (word, str(e[field]))
        for word, field in (
            ("System", "os"),
            ("Python", "python"),
            ("PyTorch", "torch"),
            ("CUDA", "cuda"),
            ("cuDNN", "cudnn"),
            ("Driver", "driver"),
            ("Processor", "cpu"),
            ("Cores", "cores"),
            ("Threads", "threads"),
        )
        if e[field] is not None
    ]
    pairs.append(("Memory", f"{significant(e['ram_gib'])} GiB"))
    if e["gpu"]:
        pairs.append(
            ("Accelerator", f"{e['gpu']['count']} × {e['gpu']['name']}, {significant(e['gpu']['mem_mib'])} MiB")
        )
    pairs.append(("Flags", ", ".join(f"{name} {'on' if on else 'off'}" for name, on in e["flags"].items())))
    return [*pairs, ("Packages", ", ".join(f"{name} {version}" for name, version in sorted(e["packages"].items())))]


def _check(row: IndexRow) -> tuple[str, ...]:
    delta = NONE if row["delta"] is None else significant(row["delta"])
    return (
        f"{LEVEL_MARKS[row['level']]} {LEVELS[row['level']]}",
        row["verdict"],
        row["by"],
        f"{row['date']:%Y-%m-%d}",
        delta,
        row["note"] or "",
    )


def _cite(record: dict[str, Any], run: IndexRow) -> str:
    task, kdbench = record["task"], record["provenance"]["kdbench_version"]
    what = f"{run['method']} on {task['name']}@v{task['version']}, seed {record['seed']}"
    return "\n".join(
        [
            f"@misc{{kdbench-{record['run_id'][:8]},",
            f"  title = {{kdbench run {record['run_id']}: {what}}},",
            f"  year = {{{record['finished_at'][:4]}}},",
            f"  note = {{kdbench {kdbench}, specification {record['spec_hash'][:16]}}},",
            "}",
        ]
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
