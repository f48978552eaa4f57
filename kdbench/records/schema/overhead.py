"""The record's overhead block: training cost against plain, with the raw timing pairs it follows from.

A measured quantity is stated here once, type, unit and words: the index's columns, the board's pages and tables and the
terminal's lines follow from its field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdbench.base.fields import Above0, Amount, Count, Pair, Part, Positive, RunId, Share, Slug, Text, Word

Build = Annotated[tuple[Pair, ...], Field(min_length=1, max_length=40)]
Builds = Annotated[tuple[Build, ...], Field(min_length=2, max_length=10)]


@dataclass(frozen=True)
class Quantity:
    """How people read a field of the block; one without is kept, and shown nowhere.

    Attributes:
        name: what a line of its own is called on a run's page; without it there is none.
        unit: stands behind the value, and in the heading of a column unless ``head_unit`` does.
        head: heading of its column in a table of costs; without it there is none.
        about: what it is, where columns are explained.
        si: a table prints it with a decimal prefix.
        part: what it belongs to, in the order of :data:`PARTS`.
    """

    name: str = ""
    unit: str = ""
    head: str = ""
    head_unit: str = ""
    about: str = ""
    si: bool = False
    part: Literal["timing", "step", "memory", "loader", "work", "energy"] = "step"

    @property
    def column_unit(self) -> str:
        """The unit in the heading of a column."""
        return self.head_unit or self.unit


PARTS = ("timing", "step", "memory", "loader", "work", "energy")
"""The paired measurement, the step beside it, memory, training with the data loader, work and parameters, energy."""


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
    source: Slug
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
    Null: does not exist on this device kind, or was not measured; ``no_energy`` says why its counter was not trusted.
    """

    mode: Literal["full", "quick"]
    protocol_version: Positive
    measured_by: RunId
    device: Word
    dtype: Word
    batch: Positive
    builds: Builds | tuple[()] = ()
    phases: tuple[Phase, ...] = ()
    step_ratio: Annotated[
        Above0,
        Quantity(
            "Step time",
            "× plain",
            "Step time",
            part="timing",
            about="Time of a training step over that of a plain step: log-ratio of paired interleaved blocks, median "
            "within and mean over several builds of both arms, with a 95 % t-interval over builds. Data loading is not "
            "in it.",
        ),
    ]
    ci95: Annotated[Pair, Quantity("Its 95 % interval", part="timing")]
    step_ms: Annotated[
        Above0,
        Quantity("Step", "ms", "Step", part="timing", about="Median time of one training step, batch on the device."),
    ]
    plain_step_ms: Annotated[Above0, Quantity("Step of plain", "ms", part="timing")]
    converged: Annotated[bool, Quantity("Interval narrow enough", part="timing")]
    aa_ratio: Annotated[Above0 | None, Quantity("Plain against plain", "×")] = None
    noise_flag: Annotated[bool, Quantity("Machine too noisy", part="timing")] = False
    contended: bool | None = None
    views_per_sample: Positive
    first_step_ms: Annotated[Above0 | None, Quantity("First step", "ms", "First step")] = None
    throughput_samples_s: Annotated[
        Above0,
        Quantity(
            "Throughput",
            "samples/s",
            "Samples/s",
            "1/s",
            si=True,
            part="timing",
            about="Labelled samples trained on in a second, without data loading.",
        ),
    ]
    end_to_end_samples_s: Annotated[
        Above0 | None, Quantity("End to end", "samples/s", "End to end", "1/s", si=True, part="loader")
    ] = None
    data_wait_frac: Annotated[Share | None, Quantity("Waiting for data", "of the time", part="loader")] = None
    peak_alloc_mib: Annotated[
        Amount | None,
        Quantity(
            "Peak memory",
            "MiB",
            "Peak memory",
            part="memory",
            about="Most memory the allocator held during a step, and as a multiple of plain’s.",
        ),
    ] = None
    plain_peak_alloc_mib: Annotated[
        Amount | None, Quantity("Peak memory of plain", "MiB", "of plain", part="memory")
    ] = None
    peak_reserved_mib: Annotated[Amount | None, Quantity("Peak memory reserved", "MiB", "Reserved", part="memory")] = (
        None
    )
    plain_peak_reserved_mib: Amount | None = None
    rss_mib: Amount | None = None
    flops_fwd: Amount | None = None
    flops_fwd_bwd: Annotated[
        Amount | None,
        Quantity(
            "FLOPs a sample, forward and backward",
            "",
            "FLOPs/sample",
            "FLOP",
            si=True,
            part="work",
            about="Counted matrix products, convolutions and attention, forward and backward, of all networks, per "
            "labelled sample, 2 per multiply-add: a lower bound.",
        ),
    ] = None
    plain_flops_fwd: Amount | None = None
    plain_flops_fwd_bwd: Annotated[
        Amount | None, Quantity("the same, plain", "", "of plain", "FLOP", si=True, part="work")
    ] = None
    flop_counter: Word | None = None
    uncounted_ops: tuple[Word, ...] = ()
    train_only_params: Annotated[
        Count | None,
        Quantity(
            "Train-only parameters",
            "",
            "Train-only",
            "params",
            si=True,
            part="work",
            about="Parameters that are trained and then thrown away.",
        ),
    ] = None
    frozen_params_loaded: Annotated[
        Count | None, Quantity("Frozen parameters loaded", "", "Frozen", "params", si=True, part="work")
    ] = None
    extra_state_mib: Annotated[Amount | None, Quantity("", "MiB", "Extra state", part="memory")] = None
    board: Annotated[tuple[BoardState, ...], Field(max_length=1000)] = ()
    energy: Annotated[Energy | None, Quantity("Energy", part="energy")] = None
    no_energy: Text | None = None

    @model_validator(mode="after")
    def _builds_in_one_place(self) -> Self:
        if bool(self.builds) == bool(self.phases):
            raise ValueError("give either builds or phases with builds of their own")
        if len({len(phase.builds) for phase in self.phases}) > 1:
            raise ValueError("all phases need the same number of builds")
        return self


QUANTITIES: dict[str, Quantity] = {
    name: said for name, field in Measured.model_fields.items() for said in field.metadata if isinstance(said, Quantity)
}
"""Field of the block to what is said of it, in the block's order."""
