"""Datasets of PyTorch, or tensors, as rows: read once, from the first to the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.base.errors import UserError, described
from kdbench.base.progress import Progress

IMAGE = "image"


def rows(given: Any, part: str, progress: Progress) -> dict[str, Tensor]:
    """``x.<input>`` and ``y`` of all rows.

    Args:
        given: a Dataset of (input, target), or a pair of tensors or arrays; an input may be a mapping by name. Pictures
            of PIL become (C, H, W) bytes.
        part: ``train`` or ``test``.

    Raises:
        UserError: it is neither, rows differ in shape, or a row is another when it is read again.
    """
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], Tensor | np.ndarray | Mapping):
        inputs, targets = _named(given[0]), _tensor(given[1], part)
        found = {f"x.{name}": _tensor(value, part) for name, value in inputs.items()} | {"y": _targets(targets, part)}
    else:
        found = _read(given, part, progress)
    for key, value in found.items():
        what = "target" if key == "y" else key.removeprefix("x.")
        _require_no_row(~value.isfinite(), f"{what} holds a number that is not finite", part)
        if key == "y" and not value.is_floating_point():
            _require_no_row(value < 0, f"{what} is below 0; classes are counted from 0", part)
    counts = {key: len(value) for key, value in found.items()}
    if len(set(counts.values())) > 1 or not min(counts.values(), default=0):
        raise UserError(f"the {part} rows: inputs and targets of equal number are asked for, there are {counts}")
    return found


def _require_no_row(wrong: Tensor, why: str, part: str) -> None:
    """Raises UserError where a row is wrong, naming the first; ``wrong``: bool, (N, ...)."""
    if bool(wrong.any()):
        raise UserError(f"row {int(wrong.nonzero()[0][0])} of the {part} rows: its {why}")


def _read(given: Any, part: str, progress: Progress) -> dict[str, Tensor]:
    if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise UserError(
            f"the {part} rows are a {type(given).__name__}; give a torch.utils.data.Dataset with a length, or a pair "
            "of tensors"
        )
    columns: dict[str, list[Tensor]] = {}
    with progress.bar(f"reading the {part} rows", len(given)) as advance:
        for number in range(len(given)):
            for key, value in _row(given, number, part).items():
                columns.setdefault(key, []).append(value)
            advance()
    _require_same_again(given, part, {key: values[0] for key, values in columns.items()} if columns else {})
    return {
        key: _targets(_stacked(v, key, part), part) if key == "y" else _stacked(v, key, part)
        for key, v in columns.items()
    }


def _row(given: Any, number: int, part: str) -> dict[str, Tensor]:
    try:
        row = given[number]
    except Exception as error:  # whatever its code does
        raise UserError(
            f"row {number} of the {part} rows cannot be read: {type(error).__name__}: {described(error, ours=False)}"
        ) from error
    if not (isinstance(row, Sequence) and not isinstance(row, str) and len(row) >= 2):
        raise UserError(
            f"row {number} of the {part} rows is a {type(row).__name__}; each is a pair of input and target"
        )
    found = {f"x.{name}": _tensor(value, part) for name, value in _named(row[0]).items()}
    return found | {"y": _tensor(row[1], part)}


def _named(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {IMAGE: given}


def _tensor(value: Any, part: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_quantized or value.layout is not torch.strided:
            raise UserError(f"the {part} rows hold a tensor of {value.dtype}, {value.layout}; give plain real numbers")
        return value.detach().cpu()
    if hasattr(value, "getbands"):  # a picture of PIL
        pixels = np.asarray(value if value.mode in ("L", "RGB") else value.convert("RGB"))
        return torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1).contiguous()
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"the {part} rows hold a {type(value).__name__}, which is no tensor, number or picture"
        ) from error


def _stacked(values: list[Tensor], key: str, part: str) -> Tensor:
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) > 1:
        some = " and ".join(map(str, sorted(shapes)[:3]))
        raise UserError(f"the {part} rows differ in the shape of {key.removeprefix('x.')}: {some}; give all one size")
    stacked = torch.stack(values)
    return stacked if key == "y" or stacked.dtype is torch.uint8 else stacked.float()


def _targets(y: Tensor, part: str) -> Tensor:
    y = y.squeeze(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise UserError(
            f"the {part} rows have targets of shape {tuple(y.shape[1:])}; one class or number a row is asked for"
        )
    return y.float() if y.is_floating_point() else y.long()


def _require_same_again(given: Any, part: str, first: dict[str, Tensor]) -> None:
    again = _row(given, 0, part)
    for key, value in first.items():
        if not torch.equal(again[key], value):
            raise UserError(
                f"row 0 of the {part} rows is another when it is read again, so its transform draws at random, which "
                "would be frozen; give plain rows and name augment=['crop4', 'flip'] instead"
            )
