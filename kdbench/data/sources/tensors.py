"""Rows that were given as Python objects: kept in the home by their content, of tensors alone.

``content`` names them; ``mean`` and ``std`` normalise each input, which is left as it is without them. Pictures of
bytes are divided by 255 first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

from kdbench.base.errors import UserError
from kdbench.base.files import sha256, write_atomic
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.data.feed.dataset import Dataset

FACTS = Facts(0, 1, {}, about="given as Python objects, kept in the home folder", licence="yours")
PARTS = ("train", "test")
TARGET = "y"
INPUT = "x."


class Options(BaseModel):
    """``content``: digest of the rows; ``mean`` and ``std``: input to one number a channel."""

    model_config = ConfigDict(extra="forbid")
    content: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    mean: dict[str, list[float]] = {}
    std: dict[str, list[float]] = {}


def keep(cache: Path, parts: Mapping[str, Mapping[str, Tensor]], classes: int, name: str) -> str:
    """Writes the rows of both parts, each ``x.<input>`` and ``y``; their digest.

    Args:
        cache: folder of decoded data sets.
        classes: 1 for a regression.
        name: what records call them.
    """
    from safetensors.torch import save

    every = [(f"{part}.{key}", value) for part, held in parts.items() for key, value in held.items()]
    tensors = {name: value.contiguous().clone() for name, value in every}  # a file shares no memory of two
    body = save(tensors)
    digest = sha256(body + json.dumps(classes).encode())
    folder = _folder(cache, digest)
    if not (folder / "facts.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "rows.safetensors", body)
        write_atomic(folder / "facts.json", json.dumps({"classes": classes, "name": name}))
    return digest


def _folder(cache: Path, digest: str) -> Path:
    return cache / f"given-{digest[:32]}"


def load(options: dict[str, Any], place: Place) -> Dataset:
    """The rows.

    Raises:
        UserError: they are not in this home.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset, Transform

    given = parse(Options, options, "tensors")
    folder = _folder(place.cache, given.content)
    try:
        tensors = load_file(folder / "rows.safetensors")
        facts = json.loads((folder / "facts.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"data.options.content: rows {given.content[:12]} are not in this home; give the datasets again, which "
            "keeps them there"
        ) from error
    rows = {}
    for part in PARTS:
        prefix = f"{part}.{INPUT}"
        x = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        rows[part] = Rows(x, tensors[f"{part}.{TARGET}"])
    inputs = rows["train"].x
    y = rows["train"].y
    pictures = [x for x in inputs.values() if x.dtype is torch.uint8 and x.ndim == 4]
    colour = {"rgb"} if pictures and all(x.shape[1] == 3 for x in pictures) else set()
    return Dataset(
        name=facts["name"],
        train=rows["train"],
        test=rows["test"],
        classes=facts["classes"],
        transforms={
            name: Transform(tuple(given.mean.get(name, [0.0])), tuple(given.std.get(name, [1.0]))) for name in inputs
        },
        label_range=(float(y.min()), float(y.max())) if y.is_floating_point() else None,
        properties=frozenset(colour),
        source="memory",
        official=False,
    )
