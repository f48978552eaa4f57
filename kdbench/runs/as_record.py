"""Puts a run together as a record."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import kdbench
from kdbench import ENGINE_VERSION, kinds
from kdbench.base.fields import CACHE
from kdbench.contract import Needs
from kdbench.devices.deviceclass import DeviceClass
from kdbench.devices.machine import environment
from kdbench.engine.assemble import Prepared, effective_task
from kdbench.engine.external import Scored
from kdbench.engine.teachers import TrainedTeacher
from kdbench.engine.trainer import StageReport, Trained, digest_sha256
from kdbench.records import files as records
from kdbench.records.files import Record
from kdbench.records.provenance import code, used
from kdbench.records.schema import Identity
from kdbench.specs import local
from kdbench.specs.config import RunConfig
from kdbench.specs.options import STORE


@dataclass(frozen=True)
class Facts:
    """What is known of a run before it starts."""

    config: RunConfig
    seed: int
    device: torch.device
    device_class: str
    run_id: str
    created_at: str
    identity: Identity


@dataclass(frozen=True)
class CellOverhead:
    """The overhead of a cell: ``block`` without ``measured_by`` when measured by this run."""

    block: dict[str, Any]
    flops_per_step: Mapping[str, float]
    deploy: Mapping[str, float | None]

    @classmethod
    def of(cls, record: Record) -> CellOverhead:
        """What an earlier run of the cell measured."""
        assert record.measured is not None
        assert record.deploy is not None
        flops = {s.name: s.flops / s.steps for s in record.stages if s.flops is not None and s.steps}
        deploy = record.deploy.model_dump(include={"gflops", "latency_ms_b1", "latency_ms_b128", "size_mib"})
        return cls(record.measured.model_dump(mode="json"), flops, deploy)


def with_result(
    facts: Facts,
    prepared: Prepared,
    trained: Trained,
    metrics: dict[str, float],
    taught: Mapping[str, float],
    test_items: int,
    deploy: dict[str, Any],
    overhead: CellOverhead | None,
    evaluated: Sequence[StageReport] = (),
    external: Mapping[str, Scored] | None = None,
    classes: Mapping[str, float] | None = None,
    items_sha256: str | None = None,
) -> Record:
    """The record of a run that ended well.

    Args:
        metrics: of the last epoch.
        taught: primary metric, by role, of the teachers that the method trained on.
        test_items: rows scored.
        deploy: ``params``, ``equals_plain`` and ``export_sha256`` of the deployed network.
        overhead: of the cell, None when it was not asked for.
        evaluated: what it cost to measure what was learnt, such as probes and fine-tuning behind the task's training.
        external: scores on the task's further test sets.
        classes: the primary metric of each class.
        items_sha256: of what the primary metric is of each test row, None where that is not kept.
    """
    primary = facts.config.task.score.primary
    digest = {"steps": len(trained.digest), "sha256": digest_sha256(trained.digest), "losses": trained.digest}
    costs = overhead.deploy if overhead else dict.fromkeys(("gflops", "latency_ms_b1", "latency_ms_b128", "size_mib"))
    return _record(
        facts,
        prepared.needs,
        status="ok",
        # Rows that are not those the task's name stands for are kept and shown, never ranked.
        task={
            "data": _data(prepared),
            "ranked": facts.config.task.ranked and prepared.data.official,
            "chance": _chance(facts.config, prepared),
        },
        models=_models(facts.config, prepared, taught),
        metrics={
            "last": metrics,
            **_signed(facts.config, metrics),
            **_best(facts.config, trained, primary),
            "test_items": test_items,
            "items_sha256": items_sha256,
            **({"external": {name: dataclasses.asdict(one) for name, one in external.items()}} if external else {}),
            **({"classes": dict(classes)} if classes else {}),
        },
        curve=[{k: v for k, v in point.items() if k != "stage"} for point in trained.curve],
        digest=digest if trained.digest else None,
        overhead=_block(overhead, facts),
        stages=_stages(prepared, trained, overhead) + [_line(report, prepared) for report in evaluated],
        deploy={**deploy, **costs},
    )


def without_result(facts: Facts, needs: Needs, status: str, kind: str, message: str) -> Record:
    """The record of a run that could not run or did not end well."""
    error = {"type": kind, "message": records.scrub(message)[:2000] or kind}
    return _record(facts, needs, status=status, error=error, overhead={"mode": "off"})


def _record(facts: Facts, needs: Needs, task: dict[str, Any] | None = None, **blocks: Any) -> Record:
    config = effective_task(facts.config)
    student = {"arch": config.task.pair.student.net, "source": "kdbench"}
    raw = {
        "schema_version": 1,
        "run_id": facts.run_id,
        "created_at": facts.created_at,
        "identity": facts.identity.model_dump(mode="json"),
        "spec_hash": facts.config.spec_hash,
        "engine_version": ENGINE_VERSION,
        "custom": config.custom,
        "own_protocol": config.own_protocol,
        "smoke": config.smoke,
        "finished_at": max(records.now(), facts.created_at),  # a clock may be set back meanwhile
        "method": _method(config, needs),
        "task": _task(config, facts.device) | {"data": []} | (task or {}),
        "device_class": facts.device_class,
        "models": {"student": student, "teachers": [], "peers": []},
        "protocol": _protocol(config),
        "seed": facts.seed,
        "environment": environment(facts.device, DeviceClass.parse(facts.device_class).processes),
        "provenance": _provenance(facts),
        "compute_match": dataclasses.asdict(config.match) if config.match else None,
        "search": dataclasses.asdict(config.tuned) if config.tuned else None,
        **blocks,
    }
    return records.parse(raw)


def _method(config: RunConfig, needs: Needs) -> dict[str, Any]:
    card, variant = config.method.ref.card, config.method.ref.variant
    listed = {
        name: sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(needs).items()
        if value is not None  # a reason there is none for
    }
    paper = {"title": card.title, "url": card.links.paper, "bibkey": card.bibkey} if card.links.paper else None
    return {
        "name": card.name,
        "variant": config.method.ref.name if variant else None,
        "adapter_version": card.version,
        "params": config.method.plain_params(),
        "params_source": config.method.params_source,
        "paper": paper,
        "needs": listed,
    }


def _task(config: RunConfig, device: torch.device) -> dict[str, Any]:
    spec = config.task
    metric = kinds.metrics()[spec.score.primary]
    low, high = metric.bounds
    return {
        "name": spec.name,
        "version": spec.version,
        "kind": spec.kind,
        "suite": spec.suite,
        "ranked": spec.ranked,
        "baseline": spec.baseline,
        "metric_primary": spec.score.primary,
        "higher_is_better": spec.score.higher_is_better,
        "unit": spec.score.unit,
        "metric_min": low,
        "metric_max": high,
    }


def _data(prepared: Prepared) -> list[dict[str, Any]]:
    """Rows the student trained on and those scored; a drawn subset is identified by the rows drawn."""
    data = prepared.data
    name = data.name.replace("_", "-")
    parts = {"train": data.drawn or data.digest("train"), "test": data.digest("test")}
    return [
        {"name": name, "split": part, "n": len(getattr(data, part).y), "sha256": digest, "source": data.source or name}
        for part, digest in parts.items()
    ]


def _signed(config: RunConfig, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Signatures of the metrics that have one."""
    found = config.task.of_kind.signatures(list(metrics))
    return {"signatures": found} if found else {}


def _chance(config: RunConfig, prepared: Prepared) -> float | None:
    """The primary metric of the best answer that ignores the input, on the rows scored."""
    chance = kinds.metrics()[config.task.score.primary].chance
    return None if chance is None else chance(prepared.data.test.y.tolist())


def _models(config: RunConfig, prepared: Prepared, taught: Mapping[str, float]) -> dict[str, Any]:
    params = sum(p.numel() for p in prepared.method.students[0].parameters())
    given = config.task.pair.student
    student = {"arch": given.net, "source": records.scrub(given.weights or "kdbench"), "params": params}
    started = {"weights_sha256": digest} if (digest := prepared.task.started_from) is not None else {}
    devices = prepared.task.ranks.size
    teachers = [
        _teacher(teacher, config.task.pair.teachers[role].seed, devices) | {"trained_metric": taught.get(role)}
        for role, teacher in prepared.teachers.items()
    ]
    rule, score = config.task.pair.ensemble, prepared.ensemble
    together = {"ensemble": {"rule": rule, "val_metric": score}} if score is not None else {}
    return {
        "student": student | started,
        "teachers": teachers,
        **together,
        "peers": [student] * (prepared.needs.students - 1),
    }


def _teacher(teacher: TrainedTeacher, seed: int, devices: int) -> dict[str, Any]:
    facts = teacher.facts
    training = None
    if facts["seconds"] is not None:
        training = {"device_h": facts["seconds"] * devices / 3600, "steps": facts["steps"], "basis": "measured"}
    return {
        "role": teacher.role,
        "arch": facts["arch"],
        "source": records.scrub(facts["source"]),
        "params": facts["params"],
        "weights_sha256": facts["weights_sha256"],
        "val_metric": teacher.score,
        "seed": seed,
        "training": training,
    }


def _protocol(config: RunConfig) -> dict[str, Any]:
    train = config.task.train
    optimizer = train.optimizer.model_dump(mode="json", exclude={"lr", "weight_decay"}, exclude_none=True)
    return {
        "epochs": train.epochs,
        "batch": train.batch,
        "optimizer": optimizer,
        "lr": train.optimizer.lr,
        "schedule": train.schedule.model_dump(mode="json"),
        "weight_decay": train.optimizer.weight_decay,
        "augment": list(config.task.data.augment),
        "amp": "off" if config.engine.precision == "fp32" else config.engine.precision,
        **config.engine.model_dump(exclude={"precision", "teacher_store_mib"}),
        "eval_every": 1,
        "selection": "last",
    }


def _best(config: RunConfig, trained: Trained, primary: str) -> dict[str, Any]:
    """The best curve point, for comparison with papers that report it; chosen on test rows, so never ranked."""
    points = [point for point in trained.curve if primary in point["val"]]
    if not points:
        return {}
    best = (max if config.task.score.higher_is_better else min)(points, key=lambda point: point["val"][primary])
    return {"best": best["val"], "best_epoch": best["epoch"], "best_selected_on": "test"}


def _block(overhead: CellOverhead | None, facts: Facts) -> dict[str, Any]:
    if overhead is None:
        return {"mode": "off"}
    dtype = DeviceClass.parse(facts.device_class).dtype
    return {"measured_by": facts.run_id, "dtype": dtype, **overhead.block}


def _stages(prepared: Prepared, trained: Trained, overhead: CellOverhead | None) -> list[dict[str, Any]]:
    """The ledger: what each stage took, and what the method made between stages."""
    lines = []
    devices = prepared.task.ranks.size  # all are held while one works
    made = {stage["name"]: (stage, entry["reused"]) for entry in prepared.task.kept for stage in entry["stages"]}
    for stage in trained.stages:
        cited = False
        if not stage.steps:
            # What it would have trained was kept: by another run, or by this one before it was killed.
            if stage.name not in made:
                continue
            facts, cited = made[stage.name]
            stage = dataclasses.replace(stage, **facts)
        per_step = overhead.flops_per_step.get(stage.name) if overhead else None
        lines.append(
            {
                "name": stage.name,
                "ledger": stage.ledger,
                "device_h": stage.seconds * devices / 3600,
                "steps": stage.steps,
                "flops": None if per_step is None else float(per_step) * stage.steps,
                "basis": "cited" if cited else "measured",
                "reusable": stage.once,
            }
        )
    for entry in prepared.task.kept:
        lines.append(
            {
                "name": entry["name"],
                "ledger": entry["ledger"],
                "device_h": entry["seconds"] * devices / 3600,
                "steps": 0,
                "basis": "cited" if entry["reused"] else "measured",
                "artefact_sha256": entry["sha256"],
                "reusable": entry["scope"] == "task",
            }
        )
    if trained.stored:
        kept = StageReport(STORE, CACHE, 0, 0, trained.stored, True)
        lines.append(_line(kept, prepared) | {"reusable": True})
    return lines


def _line(report: StageReport, prepared: Prepared) -> dict[str, Any]:
    """A line of the ledger of a stage that was trained here and whose operations nobody counted."""
    hours = report.seconds * prepared.task.ranks.size / 3600
    return {"name": report.name, "ledger": report.ledger, "device_h": hours, "steps": report.steps, "basis": "measured"}


def _provenance(facts: Facts) -> dict[str, Any]:
    config, made_by = facts.config, code()
    ranks = DeviceClass.parse(facts.device_class).processes
    words = ["torchrun", "--nproc-per-node", str(ranks), "-m"] if ranks > 1 else []
    method, task = local.typed(config)
    words += ["kdbench", "evaluate", "--method", method, "--task", task]
    words += ["--seed", str(facts.seed), *(["--smoke"] if config.smoke else []), *local.words(config)]
    words += ["--ruleset", config.ruleset] if config.tuned else []
    words += config.overrides
    return {
        "kdbench_version": kdbench.__version__,
        "git_commit": made_by.commit,
        "dirty": made_by.dirty,
        "plugins": [
            {"name": p.name, "version": p.version, "commit": p.code.commit, "dirty": p.code.dirty} for p in used(config)
        ],
        "command": records.scrub(shlex.join(words)),
        "config_resolved": config.spec(),
    }
