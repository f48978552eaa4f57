"""The result record's blocks: one run of one method on one task with one seed on one device.

Units are in the names, numbers are finite, nothing unknown is accepted. ``kdbench.records.files`` reads and writes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from kdbench.base.fields import (
    OTHER,
    Above0,
    Amount,
    Basis,
    Commit,
    Count,
    DeviceClassName,
    Ledger,
    Link,
    MethodName,
    Part,
    Positive,
    RunId,
    Settings,
    Sha256,
    Slug,
    Status,
    TaskName,
    TermName,
    Text,
    Time,
    Unit,
    Version,
    Word,
)
from kdbench.devices.deviceclass import DeviceClass
from kdbench.records.overhead import Measured, NotMeasured
from kdbench.specs.options import EngineOptions

SCHEMA_VERSION: Final = 1
MAX_CURVE = 60


class Failure(Part):
    """Why a run has no result; the message is scrubbed (:func:`scrub`)."""

    type: Word
    message: Text


class Paper(Part):
    """Where a method was published."""

    title: Text
    url: Link
    bibkey: Word


class MethodUsed(Part):
    """The method: ``name`` is the card's, ``variant`` its named parameter set; rows are ranked under the latter if any.

    ``params`` are complete after defaults. ``needs`` holds those fields of :class:`kdbench.contract.Needs` that are not
    None, sets sorted.
    """

    name: MethodName
    variant: MethodName | None = None
    adapter_version: Version
    params: Settings
    params_source: Literal["paper", "official_code", "tuned", "default"]
    paper: Paper | None = None
    needs: dict[Slug, bool | int | str | tuple[str, ...]]


class DataUsed(Part):
    """Rows of one split; ``sha256`` is of the content or of the index file that names the rows."""

    name: Slug
    split: Slug
    n: Positive
    sha256: Sha256
    source: Word


class TaskUsed(Part):
    """The task as it was. ``metric_min`` and ``metric_max`` bound the primary metric, null where it has no bound.

    ``chance``: what the best answer that ignores the input scores on the test rows; null where that is not known.
    """

    name: TaskName
    version: Positive
    kind: Slug
    suite: Slug
    ranked: bool
    baseline: MethodName
    metric_primary: Slug
    higher_is_better: bool
    unit: Unit = ""
    metric_min: float | None = None
    metric_max: float | None = None
    chance: float | None = None
    data: tuple[DataUsed, ...]

    @property
    def other_data(self) -> str | None:
        """The name that rows went by which are not known as the task's, None for the task's own."""
        return next((used.name for used in self.data if OTHER in used.name), None)

    @property
    def label(self) -> str:
        """``name@v<version>``, the key of every table."""
        return f"{self.name}@v{self.version}"


class Identity(Part):
    """What decided the result beside the specification, the seed and the device class: content, never names.

    A record without it is of the released code of its versions, and of the rows that ``task.data`` names.

    Attributes:
        code: method, and the one inside it, to its version, with ``+<digest>`` for code not released under it.
        nets: student's and teachers' nets to the engine's version, alike.
        data: of all rows before a subset, their normalisation and geometry; None for a run that ended before.
        weights: place of each weights file in the specification to the hash of the file.
    """

    code: dict[MethodName, Word]
    nets: dict[Word, Word]
    data: Sha256 | None = None
    weights: dict[Word, Sha256] = Field(default_factory=dict)


class PluginUsed(Part):
    """A distribution, or ``./folder/`` or ``./file.yaml``, that the run took its method, task or data set from.

    ``dirty``: its commit does not tell all.
    """

    name: Word
    version: Word
    commit: Commit | None = None
    dirty: bool = False


class Net(Part):
    """A network. ``weights_sha256``: the weights it started from; ``val_metric``: its own primary metric, if known."""

    arch: Word
    source: Word
    params: Positive | None = None
    weights_sha256: Sha256 | None = None
    val_metric: float | None = None


class TrainingCost(Part):
    """What training a teacher cost, once for all methods that use it."""

    device_h: Amount
    steps: Count | None = None
    energy_kwh: Amount | None = None
    basis: Basis


class Teacher(Net):
    """A frozen teacher under the role the task gives it."""

    role: Slug
    seed: Count | None = None
    training: TrainingCost | None = None


class Ensemble(Part):
    """All teachers read as one; ``val_metric`` is its own primary metric."""

    rule: Literal["mean"]
    val_metric: float


class Models(Part):
    """All networks of the run; ``peers`` are students beside the first."""

    student: Net
    teachers: tuple[Teacher, ...] = ()
    ensemble: Ensemble | None = None
    peers: tuple[Net, ...] = ()


class Protocol(Part):
    """How the student was trained. ``steps`` is set when the length is not whole epochs (compute-matched plain).

    ``optimizer`` holds its name and settings beside ``lr`` and ``weight_decay``.
    """

    epochs: Count
    steps: Positive | None = None
    batch: Positive
    optimizer: Settings
    lr: Amount
    schedule: Settings
    weight_decay: Amount
    augment: tuple[Word, ...]
    amp: Literal["off", "bf16", "fp16"]
    compile: bool
    cuda_graphs: bool = False
    channels_last: bool
    fold_teacher: bool = False
    teacher_dtype: Literal["fp32", "bf16"] | None = None
    fused: bool = False
    eval_every: Positive
    selection: Literal["last", "best_on_val"]


class Metrics(Part):
    """Scores of the deployed network. ``test_items``: rows scored, for the noise of the test set itself."""

    last: dict[Slug, float]
    best: dict[Slug, float] | None = None
    best_epoch: Count | None = None
    best_selected_on: Literal["val", "test"] | None = None
    test_items: Positive
    items_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _best_is_whole(self) -> Self:
        given = {self.best is not None, self.best_epoch is not None, self.best_selected_on is not None}
        if len(given) > 1:
            raise ValueError("best, best_epoch and best_selected_on go together")
        return self


class CurvePoint(Part):
    """One point of the training curve; ``losses`` by term, ``val`` by metric."""

    epoch: Count
    step: Count
    train_loss: float | None = None
    losses: dict[TermName, float] = Field(default_factory=dict)
    val: dict[Slug, float] = Field(default_factory=dict)
    lr: Amount
    elapsed_s: Amount


class Digest(Part):
    """Fingerprint of the first steps, for replay: ``sha256`` of the loss totals, of which the first are kept."""

    steps: Positive
    sha256: Sha256
    losses: Annotated[tuple[float, ...], Field(max_length=20)]


class ComputeMatch(Part):
    """For ``plain@M``: the published cell whose recipe cost over plain's stretched this run."""

    method: MethodName
    ratio: Above0
    spec_hash: Sha256


class StageCost(Part):
    """One line of the cost ledger; ``reusable``: its artefact serves other students of the task."""

    name: Slug
    ledger: Ledger
    device_h: Amount
    steps: Count
    flops: Amount | None = None
    energy_kwh: Amount | None = None
    basis: Basis
    artefact_sha256: Sha256 | None = None
    reusable: bool = False


class Deploy(Part):
    """The network that is kept; ``equals_plain``: same graph and parameter shapes as the plain student."""

    params: Positive
    gflops: Amount | None = None
    latency_ms_b1: Above0 | None = None
    latency_ms_b128: Above0 | None = None
    size_mib: Amount | None = None
    equals_plain: bool
    export_sha256: Sha256 | None = None


class Gpu(Part):
    """The accelerators of a run, all of one kind."""

    name: Word
    count: Positive
    mem_mib: Amount
    power_limit_w: Amount | None = None
    mig: bool | None = None


class Flags(Part):
    """Numeric modes of the libraries."""

    tf32: bool
    cudnn_benchmark: bool
    deterministic: bool


class Environment(Part):
    """The machine, without what would name it; ``packages`` are the ones that matter, the hash is of all."""

    os: Word
    python: Word
    torch: Word
    cuda: Word | None = None
    cudnn: Word | None = None
    driver: Word | None = None
    gpu: Gpu | None = None
    cpu: Word
    cores: Positive
    threads: Positive
    ram_gib: Above0
    flags: Flags
    packages: dict[Word, Word]
    packages_sha256: Sha256


class Provenance(Part):
    """How to repeat the run. A dirty tree or an unknown commit can never be verified."""

    kdbench_version: Word
    git_commit: Commit | None = None
    dirty: bool
    command: Text
    config_resolved: Settings
    plugins: tuple[PluginUsed, ...] = ()
    lockfile_sha256: Sha256 | None = None
    submitter: Word | None = None
    contact_url: Link | None = None
    licence: Literal["CC-BY-4.0"] = "CC-BY-4.0"

    @property
    def unclean(self) -> str | None:
        """Why nobody could check out what ran, None if anybody can."""
        if self.git_commit is None or self.dirty:
            return "made from code that was not committed"
        loose = [used.name for used in self.plugins if used.dirty]
        if not loose:
            return None
        whose = loose[0] if loose[0].startswith("./") else f"the plug-in {loose[0]}"
        return f"made with code of {whose} that was not committed"


class Record(Part):
    """One run. Overrides make it ``custom`` and ``smoke`` shortens it: neither is ranked; ``own_protocol`` is apart."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: RunId
    spec_hash: Sha256
    engine_version: Positive
    custom: bool
    own_protocol: bool
    smoke: bool
    status: Status
    error: Failure | None = None
    created_at: Time
    finished_at: Time
    method: MethodUsed
    task: TaskUsed
    device_class: DeviceClassName
    models: Models
    protocol: Protocol
    seed: Count
    identity: Identity | None = None
    seeds_all: dict[Slug, Count] | None = None
    metrics: Metrics | None = None
    curve: Annotated[tuple[CurvePoint, ...], Field(max_length=MAX_CURVE)] = ()
    digest: Digest | None = None
    compute_match: ComputeMatch | None = None
    overhead: Annotated[NotMeasured | Measured, Field(discriminator="mode")]
    stages: tuple[StageCost, ...] = ()
    deploy: Deploy | None = None
    environment: Environment
    provenance: Provenance

    @property
    def method_name(self) -> str:
        """The name the run is ranked under."""
        return self.method.variant or self.method.name

    @property
    def score(self) -> float | None:
        """The primary metric under the protocol's selection; None when the run has no result."""
        if self.metrics is None:
            return None
        chosen = self.metrics.best if self.protocol.selection == "best_on_val" else self.metrics.last
        return chosen[self.task.metric_primary] if chosen else None

    @property
    def published_path(self) -> str:
        """Where the record lies under the published results: ``<task>@v<version>/<method>/<run_id>.json``."""
        return f"{self.task.label.replace('/', '__')}/{self.method_name}/{self.run_id}.json"

    @property
    def ran_on(self) -> DeviceClass:
        """The device class as a value."""
        return DeviceClass.parse(self.device_class)

    @property
    def measured(self) -> Measured | None:
        """The overhead block, None when it was off."""
        return self.overhead if isinstance(self.overhead, Measured) else None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for broken, message in _contradictions(self):
            if broken:
                raise ValueError(message)
        return self


def _contradictions(r: Record) -> list[tuple[bool, str]]:
    """Rules that tie several fields together, as (is broken, message that starts with the field)."""
    ok, primary, block = r.status == "ok", r.task.metric_primary, r.measured
    last = r.metrics.last if r.metrics else {}
    best = r.metrics.best if r.metrics else None
    low, high = r.task.metric_min, r.task.metric_max
    chosen_on_val = r.metrics is not None and r.metrics.best_selected_on == "val" and primary in (best or {})
    return [
        (_instant(r.finished_at) < _instant(r.created_at), "finished_at: lies before created_at"),
        (ok and r.error is not None, "error: must be null when status is ok"),
        (ok and r.metrics is None, "metrics: missing although status is ok"),
        (ok and primary not in last, f"metrics.last: lacks the primary metric {primary!r}"),
        (ok and not any(s.ledger == "distill" for s in r.stages), "stages: lacks a stage on the ledger line 'distill'"),
        (ok and r.deploy is None, "deploy: missing although status is ok"),
        (not ok and r.error is None, f"error: missing although status is {r.status}"),
        (not ok and r.metrics is not None, f"metrics: must be null when status is {r.status}"),
        (not ok and r.deploy is not None, f"deploy: must be null when status is {r.status}"),
        (
            ok and r.protocol.selection == "best_on_val" and not chosen_on_val,
            "metrics.best: needs the primary metric, selected on val, because protocol.selection is best_on_val",
        ),
        (
            any(m[primary] < low for m in (last, best or {}) if primary in m) if low is not None else False,
            f"metrics: {primary} lies under the task's minimum {low}",
        ),
        (
            any(m[primary] > high for m in (last, best or {}) if primary in m) if high is not None else False,
            f"metrics: {primary} lies over the task's maximum {high}",
        ),
        (
            r.deploy is not None and not r.deploy.equals_plain and not r.method.needs.get("changes_student"),
            "deploy.equals_plain: false, but method.needs.changes_student does not say that the method changes it",
        ),
        (
            block is not None and (block.device, block.dtype) != (r.ran_on.device, r.ran_on.dtype),
            f"overhead.device: does not belong to the device class {r.device_class}",
        ),
        (
            _marks(r.protocol) != r.ran_on.options or (r.protocol.amp == "bf16") != (r.ran_on.dtype == "bf16"),
            f"device_class: {r.device_class} does not say what protocol says of amp, compile and the other options",
        ),
        (len({t.role for t in r.models.teachers}) < len(r.models.teachers), "models.teachers: a role is named twice"),
    ]


def _marks(protocol: Protocol) -> tuple[str, ...]:
    """The engine options of a record, its precision apart, as its device class names them."""
    options = protocol.model_dump(include=set(EngineOptions.model_fields) - {"precision"})
    return EngineOptions(precision="bf16" if protocol.amp == "bf16" else "fp32", **options).marks()


class Verification(Part):
    """A check by the maintainers. Level 1 validated, 2 checkpoint re-evaluated, 3 re-run, 4 on another device class."""

    level: Annotated[int, Field(ge=1, le=4)]
    by: Word
    date: Time
    run_id_ref: RunId | None = None
    delta: float | None = None
    verdict: Literal["passed", "failed"]
    note: Text | None = None


class Withdrawn(Part):
    """A record taken back; it stays where it is and is shown as withdrawn."""

    date: Time
    reason: Text


class SideFile(Part):
    """``verifications/<run_id>.json``: what is learnt of a record after it was written. Records never change."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: RunId
    verifications: tuple[Verification, ...] = ()
    withdrawn: Withdrawn | None = None


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
