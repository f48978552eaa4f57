"""Valid example records for tests: :func:`make_record` gives the JSON form, overrides name fields by dotted path."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from kdbench.records.files import dump, new_run_id, parse, spec_hash
from kdbench.records.schema import Record
from kdbench.specs.tuned import ruleset_of

PRIMARY = "top1"
NEEDS = {"kinds": ["classification", "crossmodal"], "teachers": ["*"], "students": 1, "changes_student": False}


def make_record(**overrides: Any) -> dict[str, Any]:
    """The JSON form of a valid record.

    Args:
        overrides: fields to set; ``__`` stands for the dot of a nested field (``task__name="digits"``). ``score`` sets
            the primary metric, ``ratio`` the overhead ratio, ``status`` other than ok makes a whole failed record.
            The overhead's ``measured_by``, the resolved configuration and its hash follow from the rest unless given.
    """
    score, ratio = overrides.pop("score", 71.5), overrides.pop("ratio", 2.0)
    run_id = overrides.get("run_id", new_run_id())
    record = _ok(run_id, score, ratio)
    if overrides.get("status", "ok") != "ok":
        record |= {
            "error": {"type": "OutOfMemory", "message": "no memory left on the device"},
            "metrics": None, "deploy": None, "digest": None, "curve": [], "stages": [], "overhead": {"mode": "off"},
        }  # fmt: skip
    for key, value in overrides.items():
        set_field(record, key.replace("__", "."), value)
    if "provenance__config_resolved" not in overrides:
        record["provenance"]["config_resolved"] = copy.deepcopy(spec_of(record))
    if "spec_hash" not in overrides:
        record["spec_hash"] = spec_hash(record["provenance"]["config_resolved"])
    return record


def set_field(record: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """Set a dotted field in place; numbers index lists. Returns the record."""
    *folders, leaf = field.split(".")
    at: Any = record
    for part in folders:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if isinstance(at, list):
        at[int(leaf)] = value
    else:
        at[leaf] = value
    return record


def spec_of(record: dict[str, Any]) -> dict[str, Any]:
    """The specification of a record from its own pieces."""
    method, task = record["method"], record["task"]
    return {
        "method": method["name"], "variant": method["variant"], "params": method["params"],
        "task": {"name": task["name"], "version": task["version"]}, "protocol": record["protocol"],
        "engine_version": record["engine_version"], **_searched(record.get("search")),
    }  # fmt: skip


def make_search(trials: int = 8, **changes: Any) -> dict[str, Any]:
    """The search block of a record."""
    return {
        "trials": trials, "sampler": "qmc", "seeds": [1000], "hours": 0.5, "entry": "7" * 64,
        "values": {"train.optimizer.lr": 0.1}, **changes,
    }  # fmt: skip


def _searched(search: dict[str, Any] | None) -> dict[str, Any]:
    if search is None:
        return {}
    name = ruleset_of(search["trials"], len(search["seeds"]), search["sampler"])
    return {"searched": {"ruleset": name, "values": search["values"]}}


def make_pairs(ratio: float, n: int = 30, seed: int = 0) -> list[list[float]]:
    """[plain_ms, method_ms] of ``n`` blocks around ``ratio``, 1 % noise."""
    rng = random.Random(seed)
    return [[p, p * ratio * rng.lognormvariate(0, 0.01)] for p in (rng.uniform(1.9, 2.1) for _ in range(n))]


def make_builds(ratio: float, n: int = 6, seed: int = 0) -> list[list[list[float]]]:
    """Five builds of ``n`` pairs."""
    pairs = make_pairs(ratio, 5 * n, seed)
    return [pairs[n * b : n * (b + 1)] for b in range(5)]


def write_records(folder: Path, *records: dict[str, Any]) -> list[Record]:
    """Write records into ``folder`` through the real writer."""
    made = [parse(copy.deepcopy(record)) for record in records]
    for record in made:
        dump(record, folder)
    return made


def write_small_board(folder: Path) -> Path:
    """plain, kd and x with three seeds each, and a failed run of y."""
    for seed in range(3):
        write_records(
            folder,
            make_record(method__name="plain", models__teachers=[], seed=seed, score=70.0 + seed, ratio=1.0),
            make_record(seed=seed, score=71.0 + 2 * seed),
            make_record(method__name="x", seed=seed, score=74.0 + seed, ratio=3.0),
        )
    write_records(folder, make_record(method__name="y", status="oom"))
    return folder


def _ok(run_id: str, score: float, ratio: float) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "run_id": run_id,
        "spec_hash": "",
        "engine_version": 1,
        "custom": False,
        "own_protocol": False,
        "smoke": False,
        "status": "ok",
        "error": None,
        "created_at": "2026-01-02T03:04:05.678Z",
        "finished_at": "2026-01-02T04:04:05.678Z",
        "method": {
            "name": "kd",
            "variant": None,
            "adapter_version": "1.0.0",
            "params": {"temperature": 4.0, "weight": 0.9},
            "params_source": "paper",
            "paper": {"title": "A <b>paper</b> & more", "url": "https://arxiv.org/abs/1503.02531", "bibkey": "hinton"},
            "needs": copy.deepcopy(NEEDS),
        },
        "task": {
            "name": "digits/few-shot",
            "version": 1,
            "kind": "classification",
            "suite": "digits",
            "ranked": True,
            "baseline": "kd",
            "metric_primary": PRIMARY,
            "higher_is_better": True,
            "unit": "%",
            "metric_min": 0.0,
            "metric_max": 100.0,
            "data": [{"name": "digits", "split": "train", "n": 100, "sha256": "1" * 64, "source": "scikit-learn"}],
        },
        "device_class": "cpu/fp32/x1",
        "models": {
            "student": {
                "arch": "w2", "source": "kdbench", "params": 264, "weights_sha256": "2" * 64, "val_metric": None,
            },
            "teachers": [
                {
                    "role": "image", "arch": "w8", "source": "trained", "params": 9000, "weights_sha256": "3" * 64,
                    "val_metric": 99.2, "seed": 0,
                    "training": {"device_h": 0.01, "steps": 1000, "energy_kwh": None, "basis": "measured"},
                }
            ],
            "peers": [],
        },
        "protocol": {
            "epochs": 2, "steps": None, "batch": 64, "optimizer": {"name": "sgd", "momentum": 0.9}, "lr": 0.05,
            "schedule": {"milestones": [1], "factor": 0.1}, "weight_decay": 5e-4, "augment": [], "amp": "off",
            "compile": False, "channels_last": False, "eval_every": 1, "selection": "last",
        },
        "seed": 0,
        "seeds_all": None,
        "metrics": {
            "last": {PRIMARY: score, "nll": 0.9}, "best": None, "best_epoch": None, "best_selected_on": None,
            "test_items": 797, "items_sha256": None,
        },
        "curve": [
            {
                "epoch": epoch, "step": epoch * 2, "train_loss": 2.0 / epoch, "losses": {"ce": 1.0, "kd": 1.0},
                "val": {PRIMARY: score + epoch - 2}, "lr": 0.05, "elapsed_s": 0.5 * epoch,
            }
            for epoch in (1, 2)
        ],
        "digest": {"steps": 2, "sha256": "4" * 64, "losses": [2.0, 1.5]},
        "compute_match": None,
        "overhead": make_overhead(run_id, ratio),
        "stages": [
            {
                "name": "distill", "ledger": "distill", "device_h": 0.02, "steps": 4, "flops": None,
                "energy_kwh": None, "basis": "measured", "artefact_sha256": None, "reusable": False,
            }
        ],
        "deploy": {
            "params": 264, "gflops": 0.001, "latency_ms_b1": 0.2, "latency_ms_b128": 1.5, "size_mib": 0.01,
            "equals_plain": True, "export_sha256": "5" * 64,
        },
        "environment": {
            "os": "Linux 6.1", "python": "3.11.9", "torch": "2.15.0", "cuda": None, "cudnn": None, "driver": None,
            "gpu": None, "cpu": "x86_64", "cores": 2, "threads": 1, "ram_gib": 16.0,
            "flags": {"tf32": False, "cudnn_benchmark": False, "deterministic": True},
            "packages": {"numpy": "2.1.0"}, "packages_sha256": "6" * 64,
        },
        "provenance": {
            "kdbench_version": "0.1.0", "git_commit": "a" * 40, "dirty": False,
            "command": "kdbench evaluate --method kd --task digits/few-shot --seeds 0",
            "config_resolved": {}, "lockfile_sha256": None, "submitter": None,
            "contact_url": None, "licence": "CC-BY-4.0",
        },
    }  # fmt: skip


def make_overhead(measured_by: str, ratio: float) -> dict[str, Any]:
    """A measured overhead block whose derived fields follow from its pairs."""
    from kdbench.stats.step_ratio import estimate_ratio

    builds = make_builds(ratio)
    found = estimate_ratio(builds)
    return {
        "mode": "full", "protocol_version": 3, "measured_by": measured_by, "device": "cpu", "dtype": "fp32",
        "batch": 64, "builds": builds, "phases": [], "step_ratio": found.ratio, "ci95": [found.lo, found.hi],
        "step_ms": found.method_ms, "plain_step_ms": found.plain_ms, "converged": True, "aa_ratio": 1.001,
        "noise_flag": False, "contended": None, "views_per_sample": 1, "first_step_ms": 30.0,
        "throughput_samples_s": 64e3 / found.method_ms, "end_to_end_samples_s": 15000.0, "data_wait_frac": 0.02,
        "peak_alloc_mib": 54.2, "plain_peak_alloc_mib": 18.0, "peak_reserved_mib": None,
        "plain_peak_reserved_mib": None, "rss_mib": 700.0, "flops_fwd": 1e6, "flops_fwd_bwd": 3e6,
        "plain_flops_fwd": 4e5, "plain_flops_fwd_bwd": 1.2e6, "flop_counter": "torch 2.15.0",
        "uncounted_ops": ["aten::add"], "train_only_params": 0, "frozen_params_loaded": 9000, "extra_state_mib": 0.0,
        "board": [], "energy": None,
    }  # fmt: skip
