"""What is around a deployed network: where it is from, what it is given, what it answers, how it was scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.contract import Rows
from kdbench.data.decode.inputs import ImageInput, Input
from kdbench.data.decode.place import Place
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.stored import Stored
from kdbench.deploy.about import About, Answer, Normalised, Origin, Raw, Scored
from kdbench.deploy.module import Deployed
from kdbench.deploy.score import searches
from kdbench.records.files import Record
from kdbench.specs.task import TaskSpec


@dataclass(frozen=True)
class Loaded:
    """A network of a run, the raw test rows that it was scored on, and the training rows if its score searches them."""

    module: Deployed
    test: Rows
    searched: Rows | None


def deployed(
    record: Record,
    spec: TaskSpec,
    rows: Dataset,
    network: nn.Module,
    net: str,
    input_name: str,
    arch: str,
    built_by_name: bool,
    values: Mapping[str, float],
) -> Loaded:
    """The network with all that is around it.

    Args:
        values: what its record says of it, by metric, the task's primary one among them.

    Raises:
        UserError: it reads sentences.
    """
    if rows.vocabularies:
        raise UserError(f"{net} of {spec.name} reads sentences, and nets that do are not taken out of kdbench yet")
    derived = rows.derived.get(input_name)
    raw = derived.base if derived is not None else input_name
    seen = rows.transforms[input_name]
    scaling = kinds.kind(spec.kind).scaling(rows.train, rows.label_range)
    about = About(
        origin=Origin(
            run_id=record.run_id, net=net, method=record.method_name, task=record.task.label, seed=record.seed,
            kdbench=record.provenance.kdbench_version,
        ),
        kind=spec.kind,
        arch=arch,
        built_by_name=built_by_name and derived is None,
        raw=Raw(
            name=raw, shape=rows.shape(raw), form=_form(spec, rows, raw, seen),
            dtype="uint8" if rows.train.x[raw].dtype is torch.uint8 else "float32",
        ),
        normalised=Normalised(
            name=input_name, mean=seen.mean, std=seen.std, derived=derived is not None, gaps=input_name in rows.optional
        ),
        answer=Answer(
            outputs=rows.classes, classes=_classes(rows), column=_column(spec, rows), texts=_texts(spec),
            range=rows.label_range, offset=scaling.offset, scale=scaling.scale,
            unit=spec.score.unit if rows.label_range is not None else "",
        ),
        scored=_scored(record, spec, len(rows.test.y), values),
        rules=dict(spec.score.rules or {}),
    )  # fmt: skip
    test, train = (Rows({raw: part.x[raw]}, part.y) for part in (rows.test, rows.train))
    return Loaded(Deployed(network, about, derived), test, train if searches(about) else None)


def _scored(record: Record, spec: TaskSpec, rows: int, values: Mapping[str, float]) -> Scored:
    own = kinds.metrics()
    told = [name for name in (spec.score.primary, *spec.score.also) if own[name].alone]
    primary = next((name for name in told if name in values), spec.score.primary)
    unit = own[primary].unit
    return Scored(
        primary=primary, value=values[primary], rows=rows, unit=record.task.unit if unit is None else unit,
        also=tuple(name for name in told if name != primary), bf16=record.protocol.amp == "bf16", k=spec.score.k,
    )  # fmt: skip


def _classes(rows: Dataset) -> tuple[str, ...]:
    """Names of the classes, their numbers where they have none; empty for numbers to predict."""
    if rows.label_range is not None:
        return ()
    return rows.class_names or tuple(map(str, range(rows.classes)))


def _column(spec: TaskSpec, rows: Dataset) -> str | None:
    """What labels or numbers are called in tables."""
    found = described.of_source(spec.data, Place(None, Path()))
    if found is not None:
        return found[0].aim
    if not isinstance(rows.train.y, Tensor):
        return None
    return "label" if rows.label_range is None else "target"


def _texts(spec: TaskSpec) -> bool:
    """Whether labels in tables are names of classes."""
    found = described.of_source(spec.data, Place(None, Path()))
    return found is not None and found[0].label is not None and found[0].label.names is not None


def _form(spec: TaskSpec, rows: Dataset, name: str, seen: Any) -> Input | None:
    """How a file becomes a row: as the data set's file says; of a source that is a module where rows are pictures."""
    found = described.of_source(spec.data, Place(None, Path()))
    if found is not None:
        return found[0].inputs.get(name)
    column, shape = rows.train.x[name], rows.shape(name)
    pictures = len(shape) == 3 and shape[0] in (1, 3)
    if isinstance(column, Stored) or column.dtype is not torch.uint8 or not pictures:
        return None
    mean, std = rows.transforms[name].mean, rows.transforms[name].std
    return ImageInput(
        kind="image",
        column=name,
        size=(shape[1], shape[2]),
        channels=3 if shape[0] == 3 else 1,
        convert=True,
        mean=mean,
        std=std,
    )
