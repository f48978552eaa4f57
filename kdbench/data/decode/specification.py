"""What a data set is, as data: columns, parts, hashes, copies (``kdbench/data/sets/<name>.yaml``, or a plugin's file).

Needs no torch.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kdbench.base import plugins
from kdbench.base.errors import UserError, nearest
from kdbench.base.yamlfile import read_as
from kdbench.data.decode.inputs import Column, Input, Slug, SoundInput
from kdbench.data.decode.place import find_folder
from kdbench.specs import local

Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
PartName = Annotated[str, StringConstraints(pattern=r"^(\.|[^./\\\x00-\x1f][^/\\\x00-\x1f]*)$", max_length=100)]
"""A part's file without its suffix or shard, or its folder's name; ``.`` is the data set's own folder."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Part = Literal["train", "test", "val"]
PART_NAMES: tuple[Part, ...] = ("train", "test")
"""The parts that every data set has; ``val``, validation rows, is in some."""
SETS = Path(__file__).parents[1] / "sets"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Model):
    """Classes: whole numbers 0 to ``classes`` - 1, or, with ``names``, texts, numbered by their place in ``names``."""

    column: Column
    classes: int = Field(ge=2)
    names: list[Column] | None = None

    @model_validator(mode="after")
    def _as_many(self) -> Label:
        if self.names is not None and not len(set(self.names)) == len(self.names) == self.classes:
            raise ValueError(f"names are {len(set(self.names))} different ones for {self.classes} classes")
        return self


class Target(_Model):
    """A number to predict. Values outside ``range`` are an error, or leave their row out with ``outside: drop``."""

    column: Column
    range: tuple[float, float]
    outside: Literal["refuse", "drop"] = "refuse"

    @model_validator(mode="after")
    def _wide(self) -> Target:
        low, high = self.range
        if not -math.inf < low < high < math.inf:
            raise ValueError("range is two finite numbers, the lower one first; a target of one value cannot be learnt")
        return self


class ObjectsColumn(_Model):
    """Boxes and classes of a picture's objects, see :mod:`kdbench.data.decode.objects`.

    Attributes:
        boxes: ``xywh`` as COCO writes them, or ``xyxy``; in pixels of the picture as it came. ``cxcywhr`` are turned
            boxes: centre, sides and degrees counter-clockwise as seen, as torchvision has them.
        classes: their names, in the order of their numbers.
        bbox, category: what boxes and classes are called.
        segments: what masks are called among the objects (COCO's ``segmentation``): polygons or run lengths.
        instances: a column of maps instead, files whose values are numbers of objects from 1, 0 for none.
        empty: boxes with a side of 0 are an error, or left out.
    """

    column: Column
    boxes: Literal["xywh", "xyxy", "cxcywhr"] = "xywh"
    classes: list[Column] = Field(min_length=1)
    bbox: Column = "bbox"
    category: Column = "category"
    segments: Column | None = None
    instances: Column | None = None
    empty: Literal["refuse", "drop"] = "refuse"

    @property
    def masked(self) -> bool:
        """Whether objects have masks."""
        return self.segments is not None or self.instances is not None

    @model_validator(mode="after")
    def _distinct(self) -> ObjectsColumn:
        if self.segments is not None and self.instances is not None:
            raise ValueError("masks are among the objects (segments) or maps of their own (instances), not both")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes have a name twice")
        if self.empty == "drop" and (self.instances is not None or self.boxes == "cxcywhr"):
            raise ValueError("empty: drop is of boxes that neither are turned nor numbered in maps")
        return self


class MapColumn(_Model):
    """A class at every pixel of a picture, see :mod:`kdbench.data.decode.maps`.

    Attributes:
        classes: their names, in the order of their numbers.
        holds: ``classes`` of pixels, or numbers of objects, 0 for none: ``instances`` become three classes, what lies
            outside, inside, and on the border of one.
        values: the value that stands for each class, in the order of ``classes``; 0, 1, 2 ... where not given.
        ignore: values of pixels that are neither target nor error.
        pictures, maps: folders of both, where a row is two files of one name instead of a table's.
        endings: of the names of pictures and of maps, what they do not share.
    """

    column: Column
    classes: list[Column] = Field(min_length=2, max_length=255)
    holds: Literal["classes", "instances"] = "classes"
    values: list[Annotated[int, Field(ge=0, le=65535)]] | None = None
    ignore: list[Annotated[int, Field(ge=0, le=65535)]] = [255]
    pictures: PartName = "images"
    maps: PartName = "maps"
    endings: tuple[str, str] = ("", "")

    @model_validator(mode="after")
    def _distinct(self) -> MapColumn:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes have a name twice")
        if self.holds == "instances" and (len(self.classes) != 3 or self.values is not None):
            raise ValueError("instances have three classes, outside, inside and border, and no values")
        known = self.values if self.values is not None else list(range(len(self.classes)))
        if len(set(known)) != len(self.classes):
            raise ValueError(f"values are {len(set(known))} different ones for {len(self.classes)} classes")
        if both := sorted(set(known) & set(self.ignore)) if self.holds == "classes" else []:
            raise ValueError(f"value {both[0]} stands for a class and is ignored")
        return self


class Hub(_Model):
    """A data set of the model hub, loaded through `datasets`; ``gated`` ones need the user's own token."""

    id: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    config: Column | None = None
    revision: Column | None = None
    gated: bool = False


class Identity(_Model):
    """What tells that rows are those the name stands for; what is not given is not known.

    ``content`` or ``sums`` of both parts prove it; the others can only disprove it.

    Attributes:
        rows: how many of each part.
        content: of each part, sha256 over the sorted digests of its rows: pixels and label, whatever the file format.
        sums: of each part, the sum of all pixel values (0 to 255) of each channel.
        squares: of each part, the sum of their squares.
        labels: of each part, sha256 over the labels in order.
        pool: like ``content``, over both parts together.
        lossless: no picture is a JPEG file.
    """

    rows: dict[Part, int] = {}
    content: dict[Part, Sha256] = {}
    sums: dict[Part, list[int]] = {}
    squares: dict[Part, list[int]] = {}
    labels: dict[Part, Sha256] = {}
    pool: Sha256 | None = None
    lossless: bool = False

    @property
    def proves(self) -> bool:
        """Whether rows that agree with all of it are the data, and no copy of theirs."""
        return any(set(PART_NAMES) <= set(known) for known in (self.content, self.sums))


class Copy(_Model):
    """A known copy that is not the official data: re-encoded pixels, or another split."""

    about: Text
    folders: list[Slug] = Field(min_length=1)
    identity: Identity


class SetSpec(_Model):
    """A data set.

    Attributes:
        folders: folder names below the user's data folder, the first that exists is read.
        path: a folder of this machine, read where the data folder has none of ``folders``; never in a set that is
            shared.
        parts: names that the training and the test part have on the hub and on disk, and the part of validation rows
            where there is one: neither trained on nor tested on.
        test_every: where both parts have one name, so that it holds all rows: one in so many of each class, or of a
            regression's rows, is a test row, drawn with a fixed seed.
        inputs: input name to column.
        only: column to the one value of it that rows of the set have; other rows of the files are left out.
        id: a column whose values must differ.
        identity: of the official data.
        copies: known copies, by what is appended to the name: ``cifar10`` + ``jpeg`` is ``cifar10-jpeg``.
        megabytes: about what the files take.
        about_rows: about how many training rows, where ``identity`` does not tell.
    """

    name: Slug
    title: Text
    hub: Hub | None = None
    folders: list[Slug] = Field(min_length=1)
    path: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    parts: dict[Part, list[PartName]] = {"train": ["train"], "test": ["test"]}
    test_every: int | None = Field(default=None, ge=2)
    inputs: dict[Slug, Input] = Field(min_length=1)
    label: Label | None = None
    target: Target | None = None
    objects: ObjectsColumn | None = None
    map: MapColumn | None = None
    only: dict[Column, int | str] = {}
    id: Column | None = None
    properties: list[Slug] = []
    licence: Text
    megabytes: float = Field(gt=0)
    about_rows: int = Field(default=0, ge=0)
    identity: Identity = Identity()
    copies: dict[Slug, Copy] = {}
    notes: dict[str, Text] = {}

    @model_validator(mode="after")
    def _one_aim(self) -> SetSpec:
        if sum(aim is not None for aim in (self.label, self.target, self.objects, self.map)) != 1:
            raise ValueError("a data set has one of label, target, objects and map")
        placed = "objects" if self.objects is not None else "a map" if self.map is not None else ""
        whole = [one.kind == "image" or (one.kind == "picture" and one.fit != "cut") for one in self.inputs.values()]
        if placed and whole != [True]:
            raise ValueError(
                f"{placed} of one input of kind image, or of kind picture with fit: scale, and of no other input, is "
                "what a set can have"
            )
        if self.map is not None and self.test_every is not None:
            raise ValueError("rows with maps have no classes to draw test rows from; name a train and a test part")
        if set(self.parts) - {"val"} != set(PART_NAMES):
            raise ValueError("parts are train and test, and val where there are validation rows")
        taken = {*self.parts["train"], *self.parts["test"]}
        if not self.parts.get("val", ["val"]) or taken & set(self.parts.get("val", [])):
            raise ValueError("val is a part of its own: name one that is neither train nor test")
        shared = set(self.parts["train"]) & set(self.parts["test"])
        if bool(shared) != (self.test_every is not None):
            raise ValueError("give test_every exactly where train and test are parts of one name")
        return self

    @property
    def part_names(self) -> tuple[Part, ...]:
        """Its parts."""
        return (*PART_NAMES, "val") if "val" in self.parts else PART_NAMES

    @property
    def own(self) -> bool:
        """Whether these are someone's own data: nothing is known elsewhere that rows could be compared with."""
        return self.hub is None and not self.copies and self.identity == Identity()

    @property
    def classes(self) -> int:
        """How many, 1 of a regression."""
        if (named := self.objects or self.map) is not None:
            return len(named.classes)
        return self.label.classes if self.label is not None else 1

    @property
    def columns(self) -> dict[str, str]:
        """Column name to what it must hold, for messages."""
        words = {
            "image": "pictures", "picture": "pictures", "clip": "videos or lists of pictures",
            "vector": "lists of numbers", "sound": "lists of int16 samples",
        }  # fmt: skip
        found = {given.column: words[given.kind] for given in self.inputs.values()}
        found |= {given.rate_column: "hertz" for given in self.inputs.values() if isinstance(given, SoundInput)}
        if self.label is not None:
            named = self.label.names is not None
            found[self.label.column] = "names of classes" if named else f"0 to {self.label.classes - 1}"
        if self.target is not None:
            found[self.target.column] = f"{self.target.range[0]:g} to {self.target.range[1]:g}"
        if self.objects is not None:
            found[self.objects.column] = "boxes and classes of objects"
            if self.objects.instances is not None:
                found[self.objects.instances] = "pictures of object numbers"
        if self.map is not None:
            found[self.map.column] = "maps of " + ("numbered objects" if self.map.holds == "instances" else "classes")
        found |= {column: f"{value!r} in the rows of the set" for column, value in self.only.items()}
        if self.id is not None:
            found[self.id] = "distinct values"
        return found

    @property
    def aim(self) -> str:
        """Column of the label, target, objects or map."""
        aim = self.label or self.target or self.objects or self.map
        assert aim is not None
        return aim.column

    def copy_name(self, copy: str | None) -> str:
        """Name of the official data or of a copy."""
        return self.name if copy is None else f"{self.name}-{copy}"

    def known(self, copy: str | None) -> Identity:
        """Identity of the official data or of a copy."""
        return self.identity if copy is None else self.copies[copy].identity

    def places(self, copy: str | None) -> list[str]:
        """Folder names of the official data or of a copy."""
        return self.folders if copy is None else self.copies[copy].folders

    def find(self, folder: Path | None, copy: str | None) -> Path | None:
        """Where the official data or a copy lie: in the user's data folder, else at ``path``; None if nowhere."""
        found = find_folder(folder, self.places(copy))
        if found is None and copy is None and self.path is not None and Path(self.path).is_dir():
            return Path(self.path)
        return found

    def check_copy(self, copy: str | None) -> None:
        """Raises: UserError: there is no such copy; names the nearest."""
        if copy is not None and copy not in self.copies:
            raise UserError(f"data.options.copy: {self.name} has no copy {copy!r}{nearest(copy, self.copies)}")


def set_files() -> dict[str, Path]:
    """Data set name to file: of this package, plugins and tasks named by path; without names that two files have."""
    return {name: paths[0] for name, paths in _files().items() if len(paths) == 1}


def shared_name(name: str) -> str | None:
    """What to do about a name that several files of data sets have; None where one alone or none has it."""
    paths = _files().get(name, [])
    if len(paths) < 2:
        return None
    return f"two data sets are called {name!r}, {paths[0]} and {paths[1]}; rename one of the files"


def _files() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys((SETS, *plugins.folders(plugins.SETS), *local.set_folders())):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, []).append(path)
    return found


def set_names() -> list[str]:
    """Every data set that is described."""
    return sorted(set_files())


@functools.cache
def set_spec(name: str) -> SetSpec:
    """A data set by name, which must be one of :func:`set_names`."""
    return read_as(SetSpec, set_files()[name], name=name)
