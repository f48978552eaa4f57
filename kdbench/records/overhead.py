"""The record's overhead block: training cost against plain, with the raw timing pairs it follows from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdbench.base.fields import Above0, Amount, Count, Pair, Part, Positive, RunId, Share, Slug, Word

Build = Annotated[tuple[Pair, ...], Field(min_length=1, max_length=40)]
Builds = Annotated[tuple[Build, ...], Field(min_length=2, max_length=10)]


class BoardState(Part):
    """A GPU right after a build was timed: a throttled one shows here. Null: the driver does not tell."""

    sm_clock_mhz: Count | None = None
    temperature_c: Count | None = None


class Phase(Part):
    """Overhead of one phase of a method whose step changes; ``steps`` weigh it."""

    name: Slug
    steps: Positive
    builds: Builds
    step_ratio: Above0
    ci95: Pair


class Energy(Part):
    """Board energy. ``windows``: [seconds, joules] of each; ``valid`` false when contended, under MIG or estimated."""

    j_per_step: Amount
    plain_j_per_step: Amount | None = None
    idle_w: Amount | None = None
    windows: tuple[tuple[Above0, Amount], ...] = ()
    source: Literal["nvml", "rapl", "estimated"]
    valid: bool


class NotMeasured(Part):
    """No overhead was measured."""

    mode: Literal["off"] = "off"


class Measured(Part):
    """Training overhead against plain (paired blocks). Ratio, interval and step times follow from the pairs.

    ``builds`` holds, of each construction of both arms, [plain_ms, method_ms] of a step, one per pair of blocks; a
    method with several phases has them in ``phases`` and none here. ``measured_by`` is the run that measured; other
    seeds of the cell copy the whole block.
    FLOPs are per labelled sample, a lower bound counted by ``flop_counter`` (``uncounted_ops`` had no formula).
    Null: does not exist on this device kind, or was not measured.
    """

    mode: Literal["full", "quick"]
    protocol_version: Positive
    measured_by: RunId
    device: Word
    dtype: Word
    batch: Positive
    builds: Builds | tuple[()] = ()
    phases: tuple[Phase, ...] = ()
    step_ratio: Above0
    ci95: Pair
    step_ms: Above0
    plain_step_ms: Above0
    converged: bool
    aa_ratio: Above0 | None = None
    noise_flag: bool = False
    contended: bool | None = None
    views_per_sample: Positive
    first_step_ms: Above0 | None = None
    throughput_samples_s: Above0
    end_to_end_samples_s: Above0 | None = None
    data_wait_frac: Share | None = None
    peak_alloc_mib: Amount | None = None
    plain_peak_alloc_mib: Amount | None = None
    peak_reserved_mib: Amount | None = None
    plain_peak_reserved_mib: Amount | None = None
    rss_mib: Amount | None = None
    flops_fwd: Amount | None = None
    flops_fwd_bwd: Amount | None = None
    plain_flops_fwd: Amount | None = None
    plain_flops_fwd_bwd: Amount | None = None
    flop_counter: Word | None = None
    uncounted_ops: tuple[Word, ...] = ()
    train_only_params: Count | None = None
    frozen_params_loaded: Count | None = None
    extra_state_mib: Amount | None = None
    board: Annotated[tuple[BoardState, ...], Field(max_length=1000)] = ()
    energy: Energy | None = None

    @model_validator(mode="after")
    def _builds_in_one_place(self) -> Self:
        if bool(self.builds) == bool(self.phases):
            raise ValueError("give either builds or phases with builds of their own")
        if len({len(phase.builds) for phase in self.phases}) > 1:
            raise ValueError("all phases need the same number of builds")
        return self
