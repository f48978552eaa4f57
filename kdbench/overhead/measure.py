"""Training overhead of a cell: asks fresh processes to measure and puts their answers into the record's block."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.devices import backends
from kdbench.devices.machine import contended, device_name
from kdbench.engine.place import RunPlace
from kdbench.overhead.order import MeasureOrder
from kdbench.specs.config import RunConfig
from kdbench.specs.order import ConfigOrder
from kdbench.stats.step_ratio import RatioEstimate, estimate_ratio, weighted_ratio

PROTOCOL_VERSION = 2
"""2: several builds of both arms; 1 had one, and an interval over its pairs."""
GATE_HOURS = 6


class MeasurementFailed(UserError):
    """The measuring process died; the message holds its last line."""


@dataclass(frozen=True)
class Overhead:
    """A measured cell.

    Attributes:
        block: the record's ``overhead`` block, without ``measured_by``.
        flops_per_step: stage name to counted FLOPs of one of its steps.
        deploy: ``gflops``, ``latency_ms_b1``, ``latency_ms_b128``, ``size_mib`` of the deployed network.
    """

    block: dict[str, Any]
    flops_per_step: dict[str, int]
    deploy: dict[str, float]


def measure(config: RunConfig, seed: int, place: RunPlace, mode: Literal["quick", "full"], stages: int) -> Overhead:
    """Measures the method of a run against plain.

    Args:
        config, seed, place: of the run; ``place.folder`` still holds what the method kept.
        mode: ``quick`` or ``full``.
        stages: number of the method's stages; they share the time.

    Raises:
        MeasurementFailed: a measuring process died.
    """
    device = place.device
    backend = backends.of(device)
    gate = _Gate(place.home.gates / f"{config.task.slug}@{backend.name}.json")
    known = gate.read() if mode == "full" else None
    order = MeasureOrder(
        config=ConfigOrder.of(config), seed=seed, device=str(device), home=place.home.root, data=place.data,
        folder=place.folder, mode=mode, stages=stages, gate=mode == "full" and known is None,
    )  # fmt: skip
    backend.synchronize(device)  # this process holds the device from now on, as the other counts on
    found = _ask(order)
    if found["gate"] is not None:
        gate.write(found["gate"])
    if not backend.on_host:
        peak = _ask(order.model_copy(update={"part": "memory-method"}))
        plain_peak = _ask(order.model_copy(update={"part": "memory-plain"}))
    else:
        peak = max((phase["peak"] for phase in found["phases"]), key=lambda p: p["alloc_mib"])
        plain_peak = found["plain_peak"]
    measured = [phase for phase in found["phases"] if phase["steps"]]
    estimate, pairs = _ratio(measured)
    steps = np.array([phase["steps"] for phase in measured], dtype=float)
    weight = steps / steps.sum()
    rows = measured[-1]["rows"]

    def mean(key: str) -> float | None:
        values = [phase.get(key) for phase in measured]
        return None if any(v is None for v in values) else float(np.dot(weight, np.array(values, dtype=float)))

    def per_row(key: str) -> float | None:
        values = [None if phase[key] is None else phase[key] / phase["rows"] for phase in measured]
        return None if any(v is None for v in values) else float(np.dot(weight, np.array(values, dtype=float)))

    passed = found["gate"] or known
    block = {
        "mode": mode,
        "protocol_version": PROTOCOL_VERSION,
        "device": device_name(device),
        "batch": rows,
        **pairs,
        "step_ratio": estimate.ratio,
        "ci95": [estimate.lo, estimate.hi],
        "step_ms": estimate.method_ms,
        "plain_step_ms": estimate.plain_ms,
        "converged": all(phase["converged"] for phase in measured),
        "aa_ratio": passed["ratio"] if passed else None,
        "noise_flag": passed is not None and not passed["passed"],
        "contended": contended(device),
        "views_per_sample": max(phase["views"] for phase in measured),
        "first_step_ms": measured[0]["first_step_ms"],
        "throughput_samples_s": 1000 * rows / estimate.method_ms,
        "end_to_end_samples_s": mean("end_to_end_samples_s"),
        "data_wait_frac": mean("data_wait_frac"),
        "peak_alloc_mib": peak["alloc_mib"],
        "plain_peak_alloc_mib": plain_peak["alloc_mib"],
        "peak_reserved_mib": peak["reserved_mib"],
        "plain_peak_reserved_mib": plain_peak["reserved_mib"],
        "rss_mib": found["rss_mib"],
        "flops_fwd": per_row("flops_fwd"),
        "flops_fwd_bwd": per_row("flops"),
        "plain_flops_fwd": found["plain_flops_fwd"] / found["plain_rows"],
        "plain_flops_fwd_bwd": found["plain_flops"] / found["plain_rows"],
        "flop_counter": measured[0]["flop_counter"],
        "uncounted_ops": sorted({op for phase in measured for op in phase["uncounted_ops"]}),
        "train_only_params": found["train_only_params"],
        "frozen_params_loaded": found["frozen_params_loaded"],
        "extra_state_mib": found["extra_state_mib"],
        "board": found["board"],
        **_energy(measured),
    }
    return Overhead(block, {phase["name"]: phase["flops"] for phase in found["phases"]}, found["deploy"])


def _ratio(measured: list[dict[str, Any]]) -> tuple[RatioEstimate, dict[str, Any]]:
    """The step-time ratio, weighted over phases, and the pairs it follows from."""
    if len(measured) == 1:
        builds = measured[0]["builds"]
        return estimate_ratio(builds), {"builds": builds, "phases": []}
    parts = []
    for phase in measured:
        own = estimate_ratio(phase["builds"])
        parts.append(
            {k: phase[k] for k in ("name", "steps", "builds")} | {"step_ratio": own.ratio, "ci95": [own.lo, own.hi]}
        )
    weighted = weighted_ratio([(part["steps"], part["builds"]) for part in parts])
    return weighted, {"builds": [], "phases": parts}


def _energy(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The record's energy block of the longest phase, or why nothing trustworthy was read where that was tried."""
    longest = max(measured, key=lambda phase: phase["steps"])
    energy = longest.get("energy")
    if energy is None:
        return {"energy": None}
    if not energy["valid"]:
        return {"energy": None, "no_energy": energy["reason"]}
    windows = [[w[1], w[0]] for w in energy["windows"]]
    block = {"j_per_step": energy["j_per_step"], "idle_w": energy["idle_w"], "windows": windows}
    return {"energy": {**block, "source": energy["source"], "valid": True}}


class _Gate:
    """Plain against plain, once a task and device: a machine is not asked again for ``GATE_HOURS``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        """What was found lately, None when it is too old or not there."""
        try:
            found = json.loads(self.path.read_text())
            return found if 0 <= time.time() - found["at"] < GATE_HOURS * 3600 else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, found: dict[str, Any]) -> None:
        """Keeps what was found now."""
        write_atomic(self.path, json.dumps({**found, "at": time.time()}))


def _ask(order: MeasureOrder) -> dict[str, Any]:
    """The answer of a fresh process to an order."""
    order.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="measure-", dir=order.folder) as folder:
        asked, answer = Path(folder) / "request.json", Path(folder) / "result.json"
        asked.write_text(order.text())
        # -P: this kdbench, not one that lies in the working directory
        words = ["-P", "-m", "kdbench.overhead.process", str(os.getpid()), str(order.home), str(asked)]
        done = subprocess.run(
            [sys.executable, *words, str(answer)], capture_output=True, text=True, env=os.environ, check=False
        )
        if done.returncode or not answer.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise MeasurementFailed(f"the overhead of {order.config.method} could not be measured: {last}")
        found: dict[str, Any] = json.loads(answer.read_text())
        return found
