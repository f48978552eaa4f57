"""Which files of a data set's folder hold a part. Reads none of them; needs neither numpy nor pyarrow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.data.decode import coco, dota, folders, voc
from kdbench.data.decode.paired import open_paired, places
from kdbench.data.decode.specification import Part, SetSpec
from kdbench.data.decode.table import Table

_SHARD = re.compile(
    r"[-_.](?P<number>\d+)([-_]of[-_](?P<count>\d+))?"
    r"(-[0-9a-f]{8,}|-[0-9a-f]{8}-[0-9a-f-]{27}(-c\d+)?)?(\.(snappy|gz|zstd?|lz4|brotli))?"
)
"""What follows a part's name in the name of one of its several files: as `datasets`, Spark and people number them."""


@dataclass(frozen=True)
class PartFiles:
    """Files of a part: tables of many rows, or a folder with a file a row.

    Attributes:
        tables: parquet or Arrow files, in order.
        folder: what holds the part's files where there are no tables.
        objects: a COCO file, a list or folder of Pascal VOC's, or of turned boxes a folder of DOTA's, of a set of
            objects; its pictures lie below ``folder``, which is the set's own. So is it of a set of maps.
        part: what the part is called there.
    """

    spec: SetSpec
    tables: Sequence[Path] = ()
    folder: Path | None = None
    objects: Path | None = None
    part: str = ""

    def placed(self) -> Table:
        """The rows of a set of objects that are no tables.

        Raises:
            UserError: as of :func:`kdbench.data.decode.coco.open_coco`, :func:`kdbench.data.decode.voc.open_voc` and
                :func:`kdbench.data.decode.dota.open_dota`.
        """
        assert self.objects is not None
        assert self.folder is not None
        if _turned(self.spec):
            return dota.open_dota(self.spec, self.objects, self.folder, self.part)
        if self.objects.suffix == ".json":
            return coco.open_coco(self.spec, self.objects, self.folder, self.part)
        return voc.open_voc(self.spec, self.objects, self.folder)

    @property
    def files(self) -> Sequence[str] | Sequence[Path]:
        """Every file that decides the part's rows; slow for a folder of many.

        Raises:
            UserError: the folder does not hold what it should.
        """
        if self.objects is not None and self.folder is not None:
            return self.placed().files
        if self.spec.map is not None and self.folder is not None:
            return open_paired(self.spec, self.folder, self.part).files
        return self.tables if self.folder is None else folders.files(self.spec, self.folder)


def part_files(spec: SetSpec, folder: Path, part: Part) -> PartFiles:
    """The files of a part on disk.

    Raises:
        UserError: nothing there, or a shard is missing.
    """
    names = spec.parts[part]
    for name in names:
        for suffix in ("parquet", "arrow"):
            if found := _files(folder, name, suffix):
                return PartFiles(spec, found)
    if spec.objects is not None:
        return _objects(spec, folder, names)
    if spec.map is not None:
        return _paired(spec, folder, names)
    for name in names:
        if (folder / name).is_dir():
            return PartFiles(spec, folder=folder / name)
    name = names[0]
    raise UserError(
        f"{folder}: no {part} part; {name}*.parquet, {name}*.arrow or a folder {name}/ of files is expected"
    )


def _objects(spec: SetSpec, folder: Path, names: Sequence[str]) -> PartFiles:
    """A part's COCO file, which is called like the part, or as COCO itself has it; or what Pascal VOC has.

    Raises:
        UserError: there is none, or there are two.
    """
    if _turned(spec):
        return _turned_objects(spec, folder, names)
    for name in names:
        places = (f"{name}.json", f"{name}/_annotations.coco.json", f"annotations/instances_{name}.json")
        there = [place for place in places if (folder / place).is_file()]
        if len(there) > 1:
            raise UserError(coco.several(folder, name, there[0], there[1]))
        if there:
            return PartFiles(spec, folder=folder, objects=folder / there[0], part=name)
    for name in names:
        if (found := voc.listing(folder, name)) is not None:
            return PartFiles(spec, folder=folder, objects=found, part=name)
    name = names[0]
    raise UserError(
        f"{folder}: no part {name}; {name}*.parquet, {name}*.arrow, a COCO file {name}.json or "
        f"annotations/instances_{name}.json beside a folder {name}/ of its pictures, or Pascal VOC's "
        f"{voc.LISTS}/{name}.txt or folder {name}/ of XML files is expected"
    )


def _turned(spec: SetSpec) -> bool:
    return spec.objects is not None and spec.objects.boxes == "cxcywhr"


def _turned_objects(spec: SetSpec, folder: Path, names: Sequence[str]) -> PartFiles:
    """A part's folder of DOTA's text files.

    Raises:
        UserError: there is none.
    """
    for name in names:
        if (found := dota.listing(folder, name)) is not None:
            return PartFiles(spec, folder=folder, objects=found, part=name)
    name = names[0]
    raise UserError(
        f"{folder}: no part {name}; {name}*.parquet, {name}*.arrow, or DOTA's text files in {name}/labelTxt/ beside "
        f"{name}/images/ are expected"
    )


def _paired(spec: SetSpec, folder: Path, names: Sequence[str]) -> PartFiles:
    """A part's folders of pictures and maps.

    Raises:
        UserError: there are none.
    """
    assert spec.map is not None
    if (name := next((name for name in names if places(spec, folder, name) is not None), None)) is not None:
        return PartFiles(spec, folder=folder, part=name)
    name = names[0]
    raise UserError(
        f"{folder}: no part {name}; {name}*.parquet, {name}*.arrow, or folders {spec.map.pictures}/{name} of pictures "
        f"and {spec.map.maps}/{name} of maps of the same names are expected"
    )


def shard_of(stem: str) -> str:
    """The part that a file belongs to by its name without suffix: ``train`` for ``train-00000-of-00002``.

    A number alone is one of a shard where it has five digits, as Spark writes it; ``my-2020`` is a file by itself.
    """
    found = re.fullmatch(rf"(?P<part>.+?){_SHARD.pattern}", stem)
    return found["part"] if found is not None and (found["count"] or len(found["number"]) == 5) else stem


def tables_of(folder: Path, name: str) -> list[Path]:
    """The parquet files of a part.

    Raises:
        UserError: there are none, or not all of them.
    """
    if found := _files(folder, name, "parquet"):
        return found
    raise UserError(f"{folder}: no parquet file {name}.parquet")


def _files(folder: Path, name: str, suffix: str) -> list[Path]:
    """Files of a part's name: the one that has it whole, else its shards, else the only one that begins with it.

    Raises:
        UserError: a shard is missing or there twice, or several files begin with the name.
    """
    for place in (folder, folder / "data"):
        stems = {path.name.removesuffix(f".{suffix}"): path for path in sorted(place.glob(f"*.{suffix}"))}
        if name in stems:
            return _inside(stems[name], suffix) if stems[name].is_dir() else [stems[name]]
        beside = {stem: path for stem, path in stems.items() if re.match(rf"{re.escape(name)}[-_.]", stem)}
        numbered = {stem: found for stem in beside if (found := _SHARD.fullmatch(stem, len(name)))}
        shards = {stem: found for stem, found in numbered.items() if found["count"]}
        _whole(place, shards)
        if numbered:
            return [beside[stem] for stem in shards or numbered]
        if len(beside) > 1:
            raise UserError(
                f"{place}: which of {', '.join(path.name for path in beside.values())} is the part {name!r}? name it "
                f"{name}.{suffix} or, in shards, {name}-00000-of-00002.{suffix}; or put its files into a folder {name}/"
            )
        if beside:
            return list(beside.values())
    return _inside(folder / name, suffix)


def _inside(folder: Path, suffix: str) -> list[Path]:
    """All tables of a folder that is a part."""
    return sorted(path for path in folder.glob(f"*.{suffix}") if not path.name.startswith("."))


def _whole(folder: Path, shards: Mapping[str, re.Match[str]]) -> None:
    """Refuses shards that are not all of one set, each once.

    Raises:
        UserError: names a shard that is missing or there twice.
    """
    if not shards:
        return
    first = next(iter(shards))
    counts = {int(found["count"]) for found in shards.values()}
    numbers = [int(found["number"]) for found in shards.values()]
    if len(counts) > 1:
        raise UserError(f"{folder}: {first} and its like are shards of several sets; keep the files of one")
    if missing := sorted(set(range(*counts)) - set(numbers)):
        raise UserError(
            f"{folder}: shard {missing[0]} of {shards[first]['count']} is missing beside {first}; the download was cut "
            "off, get it again"
        )
    if len(numbers) > len(set(numbers)):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        both = " and ".join(stem for stem, found in shards.items() if int(found["number"]) == twice)
        raise UserError(f"{folder}: shard {twice} is there twice ({both}); keep one of them")
