"""What the fresh process of :mod:`kdbench.overhead.process` measures, from an order to its answer."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kdbench.contract import Batch
from kdbench.devices import backends
from kdbench.devices.clock import Arm
from kdbench.engine.assemble import Prepared, effective_task, prepare
from kdbench.engine.task import evaluating
from kdbench.overhead.arms import PhaseArm, phases, trained_parameters
from kdbench.overhead.energy import MeasuredEnergy, measure_energy
from kdbench.overhead.flops import count_flops
from kdbench.overhead.gate import AAGate, aa_gate
from kdbench.overhead.latency import latency
from kdbench.overhead.memory import peak_memory, rss_mib, tensor_mib
from kdbench.overhead.order import CellCosts, MeasuredPhase, MeasureOrder, Peak, PhaseFacts, Times
from kdbench.overhead.timing import FIRST, FULL, QUICK, Budget, converged, measure_pairs, plain_first
from kdbench.overhead.waiting import DataWait, data_wait
from kdbench.records.schema.overhead import BoardState
from kdbench.specs import registry
from kdbench.specs.config import MethodConfig, RunConfig
from kdbench.stats.step_ratio import estimate_ratio

MEMORY_WARMUP = 3
OWN_PROCESSES = 2
"""Processes of a run on the device while it is measured: this one, and the one that asked and holds it as well."""
CPU_THREADS = 1
"""A CPU's steps are timed on one thread: threads that wait for a core another process holds would be measured, too."""


def plain_of(config: RunConfig) -> RunConfig:
    """Plain under the protocol of a configuration."""
    plain = registry.method(registry.PLAIN)
    return replace(config, method=MethodConfig(plain, plain.card.defaults(), "default"))


def _build(config: RunConfig, order: MeasureOrder) -> Prepared:
    return prepare(config, order.seed, order.place)


def _first_phase(config: RunConfig, order: MeasureOrder) -> PhaseArm:
    return next(phases(_build(config, order)))


def _budget(mode: str, device: torch.device, share: float) -> Budget:
    whole = {"quick": QUICK, "full": FULL}[mode]
    return replace(whole, warmup_s=whole.warmup_s * share, limit_s=whole.on(device)[0] * share)


def _arms(config: RunConfig, order: MeasureOrder, build: int) -> tuple[PhaseArm, Prepared]:
    """Plain's first phase and the prepared method, built in the order of the build's number.

    The caller still holds the build before, so that the new one cannot lie in the same memory.
    """
    if plain_first(build):
        return _first_phase(plain_of(config), order), _build(config, order)
    prepared = _build(config, order)
    return _first_phase(plain_of(config), order), prepared


def _facts(phase: PhaseArm, order: MeasureOrder) -> PhaseFacts:
    """What one look at a phase gives: counts, memory, and in full mode the loader and energy."""
    device = order.place.device
    backend = backends.of(device)
    compiled = phase.run.task.options.compile
    counted = count_flops(phase.counted, compiled)
    forward = count_flops(phase.forward, compiled) if phase.forward is not None else None
    peak = peak_memory(phase.counted, device) if backend.on_host else None
    waited = _waited(phase, device) if order.mode == "full" else None
    return PhaseFacts(
        name=phase.stage.name,
        steps=phase.steps,
        rows=phase.rows,
        views=phase.run.loader.n_views,
        flops=counted.flops,
        flop_counter=counted.counter,
        uncounted_ops=counted.uncounted_ops,
        peak=peak,
        energy=_energy(phase, device) if order.mode == "full" else None,
        quantities={
            "flops_fwd": forward.flops / phase.rows if forward else None,
            "flops_fwd_bwd": counted.flops / phase.rows,
            "end_to_end_samples_s": waited.samples_s if waited else None,
            "data_wait_frac": waited.fraction if waited else None,
        },
    )


def _waited(phase: PhaseArm, device: torch.device) -> DataWait:
    numbers = itertools.count()
    return data_wait(lambda: phase.run.loader.draw(next(numbers)), phase.fed, lambda b: b.rows, device)


def _energy(phase: PhaseArm, device: torch.device) -> MeasuredEnergy | None:
    """None where there is no board to be expected."""
    backend = backends.of(device)
    board = backend.board(device)
    if board is None and backend.on_host:
        return None
    none = backend.no_board() if board is None else ""
    return measure_energy(phase.step, board or none, lambda: backend.synchronize(device), own=OWN_PROCESSES)


def _deployed(prepared: Prepared, order: MeasureOrder) -> dict[str, Any]:
    """Inference cost of the deployed network, on its own."""
    device, net = order.place.device, prepared.method.deployed
    rows = torch.arange(128, device=device) % prepared.task.n_rows
    batches = {n: prepared.task.wrap(prepared.task.rows(rows[:n])) for n in (1, 128)}

    def forward(batch: Batch) -> object:
        return net(batch)

    with evaluating(net):
        flops = count_flops(lambda: forward(batches[1])).flops
        times = latency(forward, batches, device, seconds=1.0 if order.mode == "quick" else 3.0)
    return {
        "gflops": flops / 1e9,
        "latency_ms_b1": times[1].median_ms,
        "latency_ms_b128": times[128].median_ms,
        "size_mib": tensor_mib([*net.parameters(), *net.buffers()]),
    }


def times(config: RunConfig, order: MeasureOrder) -> Times:
    """Pairs, FLOPs and sizes of every phase, and the deployed network's own cost."""
    device = order.place.device
    budget = _budget(order.mode, device, 1.0 / max(1, order.stages))
    sensors = backends.of(device).board(device)
    seen: list[tuple[PhaseFacts, float]] = []
    builds: list[list[tuple[tuple[float, float], ...]]] = []
    board: list[BoardState] = []
    costs: CellCosts | None = None
    for build in range(FIRST + budget.builds):
        plain, prepared = _arms(config, order, build)
        updated: dict[int, nn.Parameter] = {}
        for number, phase in enumerate(phases(prepared)):
            timing = measure_pairs(plain.step, phase.step, device, budget=budget, build=build)
            if sensors is not None and build >= FIRST:
                board.append(BoardState(sm_clock_mhz=sensors.sm_clock_mhz(), temperature_c=sensors.temperature_c()))
            updated |= trained_parameters(phase.stage)
            if build == 0:
                seen.append((_facts(phase, order), timing.first_step_ms.method))
                builds.append([])
            if build >= FIRST:
                builds[number].append(timing.pairs)
        if build == 0:
            costs = _costs(plain, prepared, updated, order)
    measured = tuple(
        MeasuredPhase(
            facts=facts,
            first_step_ms=first_step_ms,
            builds=tuple(own),
            converged=converged(estimate_ratio(own), device, budget),
        )
        for (facts, first_step_ms), own in zip(seen, builds, strict=True)
    )
    assert costs is not None
    return Times(phases=measured, board=tuple(board), gate=_gate(config, order), costs=costs)


def _gate(config: RunConfig, order: MeasureOrder) -> AAGate | None:
    """Plain against plain, where it was asked for."""
    if not order.gate:
        return None

    def plain() -> Arm:
        return _first_phase(plain_of(config), order).step

    return aa_gate(plain, order.place.device, budget=FULL)


def _costs(plain: PhaseArm, prepared: Prepared, updated: dict[int, nn.Parameter], order: MeasureOrder) -> CellCosts:
    """Plain's counts, parameters and state of the method, and its deployed network, after a build was measured."""
    device = order.place.device
    compiled = plain.run.task.options.compile
    kept = {id(p) for p in prepared.method.deployed.parameters()}
    students = {id(b) for b in prepared.method.students.buffers()}
    assert plain.forward is not None
    teachers = {id(p): p for t in prepared.teachers.values() for p in t.net.parameters()}
    frozen = teachers | {id(p): p for p in prepared.method.parameters() if id(p) not in updated}
    counted, forward = count_flops(plain.counted, compiled), count_flops(plain.forward, compiled)
    return CellCosts(
        plain_peak=peak_memory(plain.counted, device) if backends.of(device).on_host else None,
        quantities={
            "plain_flops_fwd": forward.flops / plain.rows,
            "plain_flops_fwd_bwd": counted.flops / plain.rows,
            "train_only_params": sum(p.numel() for key, p in updated.items() if key not in kept),
            "frozen_params_loaded": sum(p.numel() for key, p in frozen.items() if key not in kept),
            "extra_state_mib": tensor_mib([b for b in prepared.method.buffers() if id(b) not in students]),
            "rss_mib": rss_mib(),
        },
        deploy=_deployed(prepared, order),
    )


def memory(config: RunConfig, order: MeasureOrder) -> Peak:
    """Peak memory of one arm alone, its highest over the phases."""
    peaks = []
    for phase in phases(_build(config, order)):
        for _ in range(MEMORY_WARMUP):
            phase.counted()
        peaks.append(peak_memory(phase.counted, order.place.device))
    return Peak(peak=max(peaks, key=lambda peak: peak.alloc_mib))


def run(order: MeasureOrder) -> Times | Peak:
    """The answer to an order."""
    torch.set_num_threads(CPU_THREADS)
    device = order.place.device
    backends.of(device).make_current(device)
    config = effective_task(order.config.config())
    config = replace(config, engine=config.engine.for_costs())  # each step of a method holds its teacher's
    if order.part == "times":
        return times(config, order)
    return memory(plain_of(config) if order.part == "memory-plain" else config, order)
