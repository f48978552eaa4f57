"""The index's columns as they follow from the record's schema: a field's type is stated there alone."""

from __future__ import annotations

import json
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from kdbench.base.fields import Part
from kdbench.records.schema import Deploy, Ensemble, Environment, ExternalScore, Gpu, Record, StageCost, Teacher
from kdbench.records.schema.overhead import Energy, Measured

_TYPES = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}


def _sql_type(annotation: Any) -> str | None:
    """The column type of a field that holds one value, or may be null; None of lists and blocks."""
    if get_origin(annotation) is Annotated:
        return _sql_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return _TYPES[type(get_args(annotation)[0])]
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        kinds = {_sql_type(one) for one in get_args(annotation) if one is not NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    return _TYPES.get(annotation)


def columns_of(block: type[Part]) -> dict[str, str]:
    """Those fields of a block that hold one value, with their column type."""
    typed = {name: _sql_type(field.annotation) for name, field in block.model_fields.items()}
    return {name: kind for name, kind in typed.items() if kind is not None}


def _type_at(block: type[Part], path: str) -> str:
    """The column type of a field by its path below a block, through blocks that may be null."""
    name, _, rest = path.partition(".")
    annotation = block.model_fields[name].annotation
    if rest:
        inner = next(
            one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and one is not NoneType
        )
        return _type_at(inner, rest)
    kind = _sql_type(annotation)
    assert kind is not None, f"{block.__name__}.{name} holds no single value"
    return kind


OVERHEAD, ENERGY = columns_of(Measured), columns_of(Energy)
MEASURED = frozenset(OVERHEAD)
"""Columns of ``overhead`` that follow from the block's fields: an index without one of them is an older one."""
STAGE, DEPLOY, ENVIRONMENT, GPU = (columns_of(block) for block in (StageCost, Deploy, Environment, Gpu))
EXTERNAL = columns_of(ExternalScore)
PATHS = {  # column of `runs` to the path it is read from
    "run_id": "run_id",
    "spec_hash": "spec_hash",
    "engine_version": "engine_version",
    "status": "status",
    "custom": "custom",
    "own_protocol": "own_protocol",
    "smoke": "smoke",
    "card": "method.name",
    "variant": "method.variant",
    "adapter_version": "method.adapter_version",
    "params_source": "method.params_source",
    "task": "task.name",
    "task_version": "task.version",
    "kind": "task.kind",
    "suite": "task.suite",
    "ranked": "task.ranked",
    "baseline": "task.baseline",
    "metric": "task.metric_primary",
    "higher_is_better": "task.higher_is_better",
    "unit": "task.unit",
    "device_class": "device_class",
    "student": "models.student.arch",
    "batch": "protocol.batch",
    "epochs": "protocol.epochs",
    "selection": "protocol.selection",
    "seed": "seed",
    "test_items": "metrics.test_items",
    "matched_method": "compute_match.method",
    "search_hours": "search.hours",
    "git_commit": "provenance.git_commit",
    "dirty": "provenance.dirty",
    "submitter": "provenance.submitter",
}
_NARROW = ("engine_version", "task_version")  # published as such in runs.parquet
RUNS = {name: "INTEGER" if name in _NARROW else _type_at(Record, path) for name, path in PATHS.items()}


def structure() -> str:
    """What is read of a record, for ``from_json``: declared, never inferred."""
    tree: dict[str, object] = {}
    for name, path in PATHS.items():
        at = tree
        *blocks, leaf = path.split(".")
        for block in blocks:
            at = at.setdefault(block, {})  # type: ignore[assignment]
        at[leaf] = RUNS[name]
    tree["created_at"] = tree["finished_at"] = "TIMESTAMP"
    tree["error"] = {"type": "VARCHAR", "message": "VARCHAR"}
    external = ", ".join(f"{name} {kind}" for name, kind in EXTERNAL.items())
    maps = {"last": "DOUBLE", "best": "DOUBLE", "classes": "DOUBLE", "external": f"STRUCT({external})"}
    tree["metrics"] |= {name: f"MAP(VARCHAR, {kind})" for name, kind in maps.items()}  # type: ignore[operator]
    tree["models"] |= {"teachers": [columns_of(Teacher)], "ensemble": columns_of(Ensemble)}  # type: ignore[operator]
    tree["overhead"] = {**OVERHEAD, "energy": ENERGY}
    tree["stages"] = [STAGE]
    tree["deploy"] = DEPLOY
    tree["environment"] = {**ENVIRONMENT, "gpu": GPU}
    return json.dumps(tree)
