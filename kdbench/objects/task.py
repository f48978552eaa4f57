"""Two datasets and networks in memory as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from kdbench.base.errors import UserError, nearest
from kdbench.base.files import sha256
from kdbench.base.given import Keys, Names, Number, Numbers, Seeds, taken
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.base.yamlfile import describe
from kdbench.data.sources import tensors
from kdbench.models.origin import OWN
from kdbench.objects.net import Tapped, net
from kdbench.objects.pickled import folder
from kdbench.objects.rows import rows
from kdbench.specs import local, nets
from kdbench.specs.pair import AUTO
from kdbench.specs.registry import SLUG
from kdbench.specs.task import TaskSpec

Net = str | nn.Module | Tapped | Callable[[tuple[int, ...], int], nn.Module]
"""A network: a net's name, a module with its weights and perhaps taps, or a factory of (input_shape, classes)."""
TEACHER = "teacher"
ADAM = {"name": "adam", "lr": 1e-3}


def task(
    name: str,
    home: Home,
    *,
    train: Any,
    test: Any,
    student: Net,
    teacher: Net | Mapping[str, Net] | None = None,
    epochs: int = 30,
    batch: int = 64,
    optimizer: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    augment: Sequence[str] = (),
    mean: Mapping[str, Sequence[float]] | None = None,
    std: Mapping[str, Sequence[float]] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Progress | None = None,
) -> str:
    """Makes data and networks known as a task; its name. Labels that are whole numbers are classes, others numbers.

    Args:
        home: keeps rows and networks for other processes.
        train, test: Datasets of (input, target), or pairs of tensors; see :func:`kdbench.objects.rows.rows`. Networks
            see the values as they are, bytes divided by 255, unless ``mean`` and ``std`` are given by input.
        student: a module starts every run from its weights, a factory or a net's name from fresh ones.
        teacher: one, or several by role; a module is used with its weights, any other is trained here.
        optimizer, schedule: as in a task file.

    Raises:
        UserError: something does not fit, or cannot be carried to another process.
    """
    if not isinstance(name, str) or not SLUG.fullmatch(name) or "__" in name:
        raise UserError(f"a task's name is of [a-z0-9_.-] without '__' here, not {name!r}")
    epochs, batch = taken("epochs", epochs, Number), taken("batch", batch, Number)
    optimizer, schedule = (
        taken(what, given, Keys | None) for what, given in (("optimizer", optimizer), ("schedule", schedule))
    )
    mean, std = (taken(what, given, Numbers | None) for what, given in (("mean", mean), ("std", std)))
    augment, seeds = taken("augment", augment, Names), taken("seeds", seeds, Seeds)
    told = progress or Progress.silent()
    parts = {"train": rows(train, "train", told), "test": rows(test, "test", told)}
    _require_alike(parts)
    y = parts["train"][tensors.TARGET]
    numbers = y.is_floating_point()
    classes = 1 if numbers else int(max(y.max(), parts["test"][tensors.TARGET].max())) + 1
    if not numbers:
        _require_classes(y, parts["test"][tensors.TARGET])
    _require_scale(parts["train"], mean or {}, std or {})
    digest = tensors.keep(home.data, parts, classes, name)
    options: dict[str, Any] = {"content": digest}
    options |= {key: {k: list(v) for k, v in given.items()} for key, given in (("mean", mean), ("std", std)) if given}
    inputs = [key.removeprefix(tensors.INPUT) for key in parts["train"] if key.startswith(tensors.INPUT)]
    roles: Mapping[str, Net] = (
        {} if teacher is None else teacher if isinstance(teacher, Mapping) else {TEACHER: teacher}
    )
    own = _net(student, home, f"{name}-student", inputs[0])
    body: dict[str, Any] = {
        "title": name,
        "version": 1,
        "kind": "regression" if numbers else "classification",
        "suite": name,
        "ranked": False,
        "unranked_because": "of Python objects",
        "baseline": "plain",
        "data": {"source": "tensors", "options": options, "augment": list(augment)},
        "pair": {
            "student": {key: value for key, value in own.items() if value != AUTO},
            "teachers": {
                role: _net(given, home, f"{name}-{role}", role if role in inputs else inputs[0])
                for role, given in roles.items()
            },
        },
        "train": {
            "epochs": epochs, "batch": batch, "optimizer": dict(optimizer or ADAM), "schedule": dict(schedule or {}),
        },
        "score": {"primary": "mae", "unit": "of target"} if numbers else {"primary": "top1"},
        "seeds": list(seeds),
    }  # fmt: skip
    try:
        TaskSpec.model_validate({"name": name, **body})
    except ValidationError as error:
        raise UserError(f"the task {name!r}: {describe(error, TaskSpec)}") from error
    text = yaml.safe_dump(body, sort_keys=False)
    made = folder(home, sha256(f"task/{name}/{text}"), lambda path: _write(path / f"{name}{local.TASK}", text))
    return local.task(str(made / f"{name}{local.TASK}"))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _net(given: Net, home: Home, name: str, input_name: str) -> dict[str, Any]:
    """What a task says of a network."""
    if isinstance(given, str):
        return {"net": given, "input": input_name, "weights": AUTO}
    declared = any(one.factory is given for one in nets.declared().values())
    made = net(given, home, None if declared else name)
    reads = given.input if isinstance(given, Tapped) and given.input is not None else input_name
    return {"net": made, "input": reads, "weights": OWN if isinstance(given, nn.Module | Tapped) else AUTO}


def _require_alike(parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    train, test = parts["train"], parts["test"]
    if train.keys() != test.keys():
        raise UserError(f"train has {', '.join(train)}, test has {', '.join(test)}; give both the same inputs")
    for key in train:
        if train[key].shape[1:] != test[key].shape[1:] or train[key].dtype != test[key].dtype:
            raise UserError(
                f"{key}: train has {tuple(train[key].shape[1:])} of {train[key].dtype}, test "
                f"{tuple(test[key].shape[1:])} of {test[key].dtype}; give both one form"
            )


def _require_classes(train: Tensor, test: Tensor) -> None:
    """Raises UserError for labels that cannot be learnt: one class alone, or one that no training row has."""
    if len(train.unique()) < 2:
        raise UserError(f"the train rows are all of class {int(train[0])}; rows of two classes at least are asked for")
    if len(unknown := test[~torch.isin(test, train)]):
        raise UserError(f"class {int(unknown[0])} of the test rows is that of no train row; give rows of it to both")


def _require_scale(rows: Mapping[str, Tensor], mean: Mapping[str, Any], std: Mapping[str, Any]) -> None:
    """Raises UserError for a mean or a deviation of no input, of another number of channels, or of 0."""
    for what, given in (("mean", mean), ("std", std)):
        for name, values in given.items():
            x = rows.get(tensors.INPUT + name)
            if x is None:
                known = [key.removeprefix(tensors.INPUT) for key in rows if key.startswith(tensors.INPUT)]
                raise UserError(f"{what}: the rows have no input {name!r}{nearest(name, known)}; {', '.join(known)}")
            if len(values) not in (1, x.shape[1] if x.ndim > 1 else 1):
                raise UserError(f"{what}: {name!r} is of shape {tuple(x.shape[1:])}, {len(values)} numbers given")
            if what == "std" and min(values) <= 0:
                raise UserError(f"std: {name!r} has {min(values):g}; deviations are above 0")
