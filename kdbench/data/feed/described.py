"""A described data set as a :class:`Dataset`: decoded, identified, ready to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Maps, Objects, OrientedObjects, Rows
from kdbench.data.decode.cache import Decoded, names_of
from kdbench.data.decode.decoded import decode
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.identity import MINE, identify
from kdbench.data.decode.inputs import ClipInput, ImageInput, Input, PictureInput, VectorInput, height_width
from kdbench.data.decode.objects import ARRAYS, MASKS
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec, set_names, set_spec
from kdbench.data.feed.dataset import Dataset, Derived, Transform, select
from kdbench.data.feed.kept import StoredMasks
from kdbench.data.feed.stored import Geometry, Stored
from kdbench.specs.data import Data


class First(BaseModel):
    """Rows to keep of each part, the first in order: of each class, or in all for a regression."""

    model_config = ConfigDict(extra="forbid")
    train: int = Field(ge=1)
    test: int = Field(ge=1)


class SetOptions(BaseModel):
    """``copy``: a known copy instead of the official data. ``first``: fewer rows, for teachers too. ``score``: ``val``
    scores on the validation rows instead of the test rows, to choose settings by; such runs are never ranked.
    """

    model_config = ConfigDict(extra="forbid")
    known_copy: str | None = Field(default=None, alias="copy")
    first: First | None = None
    score: Literal["test", "val"] = "test"


def of_source(given: Data, place: Place) -> tuple[SetSpec, Path | None] | None:
    """The data set behind a task's data and where it lies on disk, None for a source that is a module."""
    if given.source not in set_names():
        return None
    spec = set_spec(given.source)
    return spec, spec.find(place.folder, parse(SetOptions, given.options, spec.name).known_copy)


def decoded_of(given: Data, place: Place) -> Decoded | None:
    """The decoded rows behind a task's data, None for a source that is a module."""
    found = of_source(given, place)
    if found is None:
        return None
    return decode(found[0], parse(SetOptions, given.options, found[0].name).known_copy, place)


def load(spec: SetSpec, options: dict[str, Any], place: Place) -> Dataset:
    """All rows of a data set.

    Raises:
        UserError: no such copy, the data are absent or bad, or they are a known copy of what was asked for.
    """
    given = parse(SetOptions, options, spec.name)
    copy = given.known_copy
    spec.check_copy(copy)
    decoded = decode(spec, copy, place)
    name, why_not = identify(spec, copy, decoded)
    if why_not is MINE:
        place.progress.say(f"{decoded.origin}: your own data, recorded as {name}; not ranked")
    elif why_not is not None:
        place.progress.say(
            f"{decoded.origin}: not known as {spec.copy_name(copy)} ({why_not}); recorded as {name}, and not ranked"
        )
    if given.score not in spec.part_names:
        raise UserError(
            f"data.options.score: {spec.name} has no validation part; name one in its file, parts: {{..., val: [...]}}"
        )
    if given.score != "test":
        name, why_not = f"{name}-{given.score}", "it is scored on other rows than the test rows"
    transforms, derived, shows = {}, {}, {}
    for input_name, column in spec.inputs.items():
        transforms[input_name] = transform(column)
        if isinstance(column, ImageInput | PictureInput | ClipInput):
            shows[input_name] = column.column
        if isinstance(column, ClipInput) and column.frame is not None:
            transforms[column.frame] = transforms[input_name]
            derived[column.frame] = Derived(input_name, one_frame)
    whole = Dataset(
        name=name,
        train=rows_of(spec, decoded, "train"),
        test=rows_of(spec, decoded, given.score),
        classes=spec.classes,
        transforms=transforms,
        derived=derived,
        shows=shows,
        made={name: settings for name, given in spec.inputs.items() if (settings := given.made())},
        optional=frozenset(n for n, g in spec.inputs.items() if isinstance(g, VectorInput) and g.optional),
        label_range=spec.target.range if spec.target is not None else None,
        properties=frozenset(spec.properties),
        source=decoded.origin if decoded.origin.startswith("hub:") else f"folder:{spec.places(copy)[0]}",
        official=why_not is None,
        class_names=_class_names(spec, decoded),
        digests={
            "train": decoded.facts["parts"]["train"]["ordered"],
            "test": decoded.facts["parts"][given.score]["ordered"],
        },
    )
    return whole if given.first is None else _first(whole, given.first)


def _first(data: Dataset, keep: First) -> Dataset:
    """The first rows of each class, or of a regression's parts.

    Raises:
        UserError: a class has fewer.
    """

    if not isinstance(data.train.y, Tensor):
        raise UserError(f"data.options.first: {data.name} has no classes of rows; remove it, or write data.subset.rows")

    def some(part: str, rows: Rows, count: int) -> Rows:
        groups = [rows.y == label for label in range(data.classes)] if data.label_range is None else [rows.y == rows.y]
        index = [torch.nonzero(group).squeeze(1)[:count] for group in groups]
        short = next((label for label, found in enumerate(index) if len(found) < count), None)
        if short is not None:
            of = f"class {short} of " if data.label_range is None else ""
            raise UserError(f"data.options.first: {of}{data.name} has {len(index[short])} {part} rows, not {count}")
        return select(rows, torch.cat(index).sort().values)

    return replace(
        data, train=some("train", data.train, keep.train), test=some("test", data.test, keep.test), digests={}
    )


def transform(given: Input) -> Transform:
    """The normalisation of an input."""
    mean, std = (v if isinstance(v, tuple) else (v,) for v in (given.mean, given.std))
    return Transform(mean, std)


def one_frame(clip: Tensor, rng: torch.Generator | None) -> Tensor:
    """(N, C, T, H, W) to (N, C, H, W): a random picture of each clip, the middle one without a generator."""
    n, frames = clip.shape[0], clip.shape[2]
    if rng is None:
        return clip[:, :, frames // 2]
    return clip[torch.arange(n, device=clip.device), :, torch.randint(frames, (n,), generator=rng, device=clip.device)]


def _class_names(spec: SetSpec, decoded: Decoded) -> tuple[str, ...] | None:
    """Those that the data tell, if each class has one of its own."""
    if (named := spec.objects or spec.map) is not None:
        return tuple(named.classes)
    if spec.label is None:
        return None
    names = spec.label.names or decoded.facts.get("classes")
    return tuple(names) if names is not None and len(set(names)) == len(names) == spec.label.classes else None


def rows_of(spec: SetSpec, decoded: Decoded, part: str) -> Rows:
    """The rows of a decoded part."""
    digest = decoded.facts["parts"][part]["ordered"]
    columns: dict[str, Any] = {name: column(given, decoded, part, name, digest) for name, given in spec.inputs.items()}
    if spec.objects is not None:
        (given,) = spec.inputs.values()
        masks = _masks(decoded, part, given, digest) if spec.objects.masked else None
        return Rows(columns, _objects(decoded, part, masks, spec.objects.boxes == "cxcywhr"))
    y = torch.from_numpy(np.array(decoded.array(part, "y")))
    return Rows(columns, y if spec.map is None else Maps(y))


def _masks(decoded: Decoded, part: str, given: Input, digest: str) -> Tensor | StoredMasks:
    """Those of a decoded part: as pictures are, held or read when drawn."""
    if not isinstance(given, PictureInput):
        return torch.from_numpy(np.array(decoded.array(part, f"y.{MASKS}")))
    bounds = decoded.array(part, f"y.{MASKS}.bounds")
    return StoredMasks(
        blob=decoded.blob(part, f"y.{MASKS}"),
        bounds=bounds,
        rows=np.arange(len(bounds) - 1),
        size=height_width(given.size),
        digest=digest,
        name=f"{decoded.origin} {part}",
    )


def _objects(decoded: Decoded, part: str, masks: Tensor | StoredMasks | None, turned: bool) -> Objects:
    """Those of a decoded part; without crowds where there are none."""
    held: dict[str, Any] = {name: torch.from_numpy(np.array(decoded.array(part, f"y.{name}"))) for name in ARRAYS}
    held["masks"] = masks
    of = OrientedObjects if turned else Objects
    held["boxes"] = held["boxes"].reshape(-1, of.WIDTH)
    return of(**held if held["ignore"].any() else {**held, "ignore": None})


def column(given: Input, decoded: Decoded, part: str, name: str, digest: str) -> Tensor | Stored:
    """A decoded column; ``digest`` identifies the content of a stored one."""
    if not isinstance(given, PictureInput | ClipInput):
        return torch.from_numpy(decoded.array(part, name))
    first = decoded.array(part, f"{name}.first")
    fit = Fit.of(given) if isinstance(given, PictureInput) and given.fit != "cut" else None
    return Stored(
        blob=decoded.blob(part, name),
        bounds=decoded.array(part, f"{name}.bounds"),
        first=first,
        rows=np.arange(len(first) - 1),
        geometry=Geometry(given.size, given.resize, fit),
        frames=given.frames if isinstance(given, ClipInput) else None,
        digest=digest,
        name=f"{decoded.origin} {part}",
        names=decoded.folder / names_of(part),
        white=given.white if isinstance(given, PictureInput) else None,
        channels=given.channels if isinstance(given, PictureInput) else 3,
    )
