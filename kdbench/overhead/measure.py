"""Training overhead of a cell: asks fresh processes to measure and puts their answers into the record's block."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.devices import backends
from kdbench.devices.machine import contended, device_class, device_name
from kdbench.engine.place import RunPlace
from kdbench.overhead.gate import AAGate
from kdbench.overhead.memory import PeakMemory
from kdbench.overhead.order import MeasuredPhase, MeasureOrder, Peak, PhaseFacts, Times
from kdbench.specs.config import RunConfig
from kdbench.specs.order import ConfigOrder, Order
from kdbench.stats.step_ratio import RatioEstimate, estimate_ratio, weighted_ratio

PROTOCOL_VERSION = 3
"""3: the first build of a process is not kept; 2: several builds of both arms; 1: one, with an interval over pairs."""
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
        MeasurementFailed: a measuring process died, or none can use the device beside this one.
    """
    device = place.device
    backend = backends.of(device)
    if reason := backend.no_second_process(device):
        raise MeasurementFailed(f"the overhead of {config.method.ref.name} cannot be measured: {reason}")
    of_class = re.sub(r"[/:]", "-", device_class(device, config.engine))
    gate = _Gate(place.home.gates / f"{config.task.slug}@{of_class}.json")
    known = gate.read() if mode == "full" else None
    order = MeasureOrder(
        config=ConfigOrder.of(config), seed=seed, device=str(device), home=place.home.root, data=place.data,
        folder=place.folder, mode=mode, stages=stages, gate=mode == "full" and known is None,
    )  # fmt: skip
    backend.release_memory(device)  # the other builds both arms twice
    backend.synchronize(device)  # this process holds the device from now on, as the other counts on
    found = _ask(order, Times)
    if found.gate is not None:
        gate.write(found.gate)
    peak, plain_peak = _peaks(order, found)
    measured = [phase for phase in found.phases if phase.facts.steps]
    facts = [phase.facts for phase in measured]
    estimate, pairs = _ratio(measured)
    rows = facts[-1].rows
    passed = found.gate or known
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
        "converged": all(phase.converged for phase in measured),
        "aa_ratio": passed.ratio if passed else None,
        "noise_flag": passed is not None and not passed.passed,
        "contended": contended(device),
        "views_per_sample": max(phase.views for phase in facts),
        "first_step_ms": measured[0].first_step_ms,
        "throughput_samples_s": 1000 * rows / estimate.method_ms,
        "peak_alloc_mib": peak.alloc_mib,
        "plain_peak_alloc_mib": plain_peak.alloc_mib,
        "peak_reserved_mib": peak.reserved_mib,
        "plain_peak_reserved_mib": plain_peak.reserved_mib,
        "flop_counter": facts[0].flop_counter,
        "uncounted_ops": sorted({op for phase in facts for op in phase.uncounted_ops}),
        "board": [state.model_dump() for state in found.board],
        **_averaged(facts),
        **found.costs.quantities,
        **_energy(facts),
    }
    return Overhead(block, {phase.facts.name: phase.facts.flops for phase in found.phases}, found.costs.deploy)


def _peaks(order: MeasureOrder, found: Times) -> tuple[PeakMemory, PeakMemory]:
    """Peak memory of the method's and of plain's step; on a GPU each is measured in a process of its own."""
    seen = [phase.facts.peak for phase in found.phases if phase.facts.peak is not None]
    if found.costs.plain_peak is not None:
        return max(seen, key=lambda peak: peak.alloc_mib), found.costs.plain_peak
    method, plain = (
        _ask(order.model_copy(update={"part": part}), Peak).peak for part in ("memory-method", "memory-plain")
    )
    return method, plain


def _averaged(facts: list[PhaseFacts]) -> dict[str, float | None]:
    """The quantities of a step, each phase weighing as many steps as it has; null where any phase has none."""
    steps = np.array([phase.steps for phase in facts], dtype=float)
    weight = steps / steps.sum()
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for phase in facts for name in phase.quantities):
        values = [phase.quantities.get(name) for phase in facts]
        lacking = any(value is None for value in values)
        found[name] = None if lacking else float(np.dot(weight, np.array(values, dtype=float)))
    return found


def _ratio(measured: list[MeasuredPhase]) -> tuple[RatioEstimate, dict[str, Any]]:
    """The step-time ratio, weighted over phases, and the pairs it follows from."""
    if len(measured) == 1:
        builds = measured[0].builds
        return estimate_ratio(builds), {"builds": builds, "phases": []}
    parts = []
    for phase in measured:
        own = estimate_ratio(phase.builds)
        named = {"name": phase.facts.name, "steps": phase.facts.steps, "builds": phase.builds}
        parts.append(named | {"step_ratio": own.ratio, "ci95": [own.lo, own.hi]})
    weighted = weighted_ratio([(phase.facts.steps, phase.builds) for phase in measured])
    return weighted, {"builds": [], "phases": parts}


def _energy(facts: list[PhaseFacts]) -> dict[str, Any]:
    """The record's energy block of the longest phase, or why nothing trustworthy was read where that was tried."""
    energy = max(facts, key=lambda phase: phase.steps).energy
    if energy is None:
        return {"energy": None}
    if not energy.valid:
        return {"energy": None, "no_energy": energy.reason}
    windows = [[window.seconds, window.joules] for window in energy.windows]
    block = {"j_per_step": energy.j_per_step, "idle_w": energy.idle_w, "windows": windows}
    return {"energy": {**block, "source": energy.source, "valid": True}}


class _Gate:
    """Plain against plain, once a task and device class: a machine is not asked again for ``GATE_HOURS``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> AAGate | None:
        """What was found lately, None when it is too old or not there."""
        try:
            found = json.loads(self.path.read_text())
            return AAGate(**found) if 0 <= time.time() - found.pop("at") < GATE_HOURS * 3600 else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, found: AAGate) -> None:
        """Keeps what was found now."""
        write_atomic(self.path, json.dumps({**asdict(found), "at": time.time()}))


A = TypeVar("A", bound=Order)


def _ask(order: MeasureOrder, answers: type[A]) -> A:
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
        return answers.read(answer.read_text())
