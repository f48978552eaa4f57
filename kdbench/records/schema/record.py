"""A record as a whole, and the rules that tie its blocks together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from kdbench.base.fields import Count, DeviceClassName, Part, Positive, RunId, Sha256, Slug, Status, Time
from kdbench.devices.deviceclass import DeviceClass
from kdbench.records.schema.asked import ComputeMatch, MethodUsed, Protocol, SearchUsed, TaskUsed
from kdbench.records.schema.machine import Environment
from kdbench.records.schema.networks import Models
from kdbench.records.schema.origin import Identity, Provenance
from kdbench.records.schema.outcome import CurvePoint, Deploy, Digest, Failure, Metrics, StageCost
from kdbench.records.schema.overhead import Measured, NotMeasured
from kdbench.records.schema.version import SCHEMA_VERSION
from kdbench.specs.options import EngineOptions
from kdbench.specs.tuned import AS_PUBLISHED, ruleset_of

MAX_CURVE = 60
"""Points of a training curve that a record keeps at most."""


class Record(Part):
    """One run. Overrides make it ``custom`` and ``smoke`` shortens it: neither is ranked; ``own_protocol`` is apart.

    ``search`` is given where its hyper-parameters are not the published ones; only runs of one ruleset are compared.
    """

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
    search: SearchUsed | None = None
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
    def ruleset(self) -> str:
        """``published``, or the ruleset of its search."""
        if self.search is None:
            return AS_PUBLISHED
        return ruleset_of(self.search.trials, len(self.search.seeds), self.search.sampler)

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
    options = _options(r.protocol)
    return [
        (isinstance(options, str), f"protocol: {options}"),
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
            not isinstance(options, str)
            and (options.marks() != r.ran_on.options or r.ran_on.dtype != _dtype(r.protocol)),
            f"device_class: {r.device_class} does not say what protocol says of amp, compile and the other options",
        ),
        (
            r.search is not None and r.compute_match is not None,
            "search: compute-matched plain is of published values alone",
        ),
        (
            (r.search is not None) != ("searched" in r.provenance.config_resolved),
            "search: does not agree with searched in provenance.config_resolved",
        ),
        (len({t.role for t in r.models.teachers}) < len(r.models.teachers), "models.teachers: a role is named twice"),
    ]


def _options(protocol: Protocol) -> EngineOptions | str:
    """The engine options of a record, or why there are none such."""
    given = protocol.model_dump(include=set(EngineOptions.model_fields) - {"precision"})
    try:
        return EngineOptions(precision=protocol.amp if protocol.amp in ("bf16", "tf32") else "fp32", **given)
    except ValidationError as error:
        return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")


def _dtype(protocol: Protocol) -> str:
    """The type of the arithmetic inside the networks as a device class names it."""
    return "fp32" if protocol.amp == "off" else protocol.amp


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
