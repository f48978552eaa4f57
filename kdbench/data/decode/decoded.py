"""Decoded data sets: made once from the files, kept as memory-mapped arrays under the hash of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdbench.base.cache import Damaged, build_once
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import read_facts, sha256, write_atomic
from kdbench.data.decode import cache, tables
from kdbench.data.decode.cache import FACTS, Decoded
from kdbench.data.decode.classfolders import differing, some
from kdbench.data.decode.classnames import class_names
from kdbench.data.decode.columns import Writer
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.inputs import ImageInput, PictureInput, SoundInput
from kdbench.data.decode.maps import MapsWriter
from kdbench.data.decode.objects import ObjectsWriter
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import PART_NAMES, Part, SetSpec
from kdbench.data.decode.table import Table, is_text, share

WHOLE = "whole numbers"
MULTI_LABEL = " (several labels a row, multi-label, is no kind of task here)"


def decode(spec: SetSpec, copy: str | None, place: Place) -> Decoded:
    """The decoded data set, made now if it is not there.

    Raises:
        UserError: the data are not at hand, or bad: names file and row.
    """
    local = spec.find(place.folder, copy)
    if local is not None:
        parts = {part: tables.open_part(spec, local, part) for part in spec.part_names}
        return _made(spec, parts, place, str(local))
    if copy is not None or spec.hub is None:
        raise absent_copy(spec, copy, place.folder)
    return _from_hub(spec, place)


def absent_copy(spec: SetSpec, copy: str | None, folder: Path | None) -> UserError:
    """The error for a data set, or a copy of it, that is not at hand."""
    if copy is None:
        return tables.absent(spec, folder)
    about = spec.copies[copy]
    place = f"{folder or '<data folder>'}/{about.folders[0]}"
    return UserError(
        f"{spec.copy_name(copy)} is not at hand: {about.about}; put it in {place}, "
        "and name that data folder with --data or KDBENCH_DATA"
    )


def _from_hub(spec: SetSpec, place: Place) -> Decoded:
    """Later starts need neither the hub nor `datasets`."""
    assert spec.hub is not None
    found = cache.peek_hub(spec, place.cache)
    if found is not None:
        with suppress(Damaged):
            _check(found.folder)
            return found
    made = _made(spec, tables.from_hub(spec), place, f"hub:{spec.hub.id}")
    cache.point_to(spec, made, place.cache)
    return made


def _made(spec: SetSpec, parts: Mapping[Part, Table], place: Place, origin: str) -> Decoded:
    _same_classes(parts)
    if spec.test_every is not None:
        for table in parts.values():
            _columns(spec, table)
        parts = {
            part: share(table, part, spec.aim, spec.test_every, by_class=spec.label is not None)
            for part, table in parts.items()
        }
    names = class_names(parts["train"], spec.aim)
    content = cache.content_key({part: table.files for part, table in parts.items()}, place.cache)
    folder = cache.place_of(spec, content, place.cache)

    def build(path: Path) -> None:
        for line in dict.fromkeys(table.passed for table in parts.values() if table.passed):
            place.progress.say(line)
        for left in path.iterdir():  # of a decoder that was killed
            left.unlink()
        rows_of = {part: decode_part(spec, part, table, path, place) for part, table in parts.items()}
        _distinct(spec, rows_of)
        if spec.label is not None:
            _every_class(spec, parts, {part: np.load(path / f"{part}.y.npy") for part in parts}, place)
        own = ("digests", "ids", "inputs")
        facts = {part: {k: v for k, v in found.items() if k not in own} for part, found in rows_of.items()}
        both = [digest for part in PART_NAMES for digest in rows_of[part]["digests"]]
        sizes = {file.name: file.stat().st_size for file in path.iterdir()}
        repeated = {_repeated_key(part): _repeated(rows_of, part) for part in parts if part != "train"}
        known = {"set": spec.name, "classes": names, **repeated}
        body = {"parts": facts, "pool": _together(both), "files": sizes, **known}
        write_atomic(path / FACTS, json.dumps(body, indent=1))

    build_once(folder, _check, build, place.progress.say)
    made = Decoded.read(folder, origin)
    return replace(made, facts={"classes": names, **made.facts})  # kdbench did not always keep names


def _repeated_key(part: Part) -> str:
    return "repeated" if part == "test" else f"repeated_{part}"


def _repeated(rows_of: Mapping[Part, Mapping[str, Any]], part: Part) -> list[int]:
    """Rows of a part, by number, whose inputs stand in the training part, of validation rows in the test part too."""
    others = ("train",) if part == "test" else PART_NAMES
    seen = {digest for other in others for digest in rows_of[other]["inputs"]}
    return [row for row, digest in enumerate(rows_of[part]["inputs"]) if digest in seen]


def _check(folder: Path) -> None:
    try:
        sizes = read_facts(folder / FACTS, "files")["files"]
        wrong = [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(str(error)) from error
    if wrong:
        raise Damaged(f"{wrong[0]} is not of the size it was written with")


def _together(digests: list[bytes]) -> str:
    """sha256 over row digests, whatever their order."""
    return sha256(b"".join(sorted(digests)))


def decode_part(spec: SetSpec, part: str, table: Table, folder: Path, place: Place) -> dict[str, Any]:
    """Writes the arrays of a part into a folder.

    Returns:
        What is known of its rows: the ``parts`` of a data set's facts, and ``digests``, ``inputs`` and ``ids`` a row.

    Raises:
        UserError: a row that is not as described, or none at all; names file and row.
    """
    if table.count == 0:
        raise UserError(f"{table.name}: the {part} part is empty")
    columns = _columns(spec, table)
    writers = {name: Writer(given, folder / f"{part}.{name}", table.count) for name, given in spec.inputs.items()}
    placed = _placed(spec, folder / f"{part}.y", table.count)
    aims: list[int | float] = []
    digests: list[bytes] = []
    inputs: list[bytes] = []
    ids: dict[Any, str] = {}
    with (
        place.progress.bar(f"decoding {spec.name} {part}", table.count) as advance,
        (folder / cache.names_of(part)).open("w", encoding="utf-8") as names,
    ):
        for at, row in table.read(columns):
            aim = _aim(spec, row, at) if _is_of(spec, row) else None
            if aim is not None:
                if spec.id is not None:
                    _seen_once(spec.id, row[spec.id], at, ids)
                digest = hashlib.sha256(repr(aim).encode())
                seen = hashlib.blake2b(digest_size=16)
                for writer in writers.values():
                    content = writer.add(row, at)
                    digest.update(content)
                    seen.update(content)
                if placed is not None:
                    (shown,) = writers.values()
                    maps = [row[column]] if spec.objects and (column := spec.objects.instances) else []
                    digest.update(placed.add(row[spec.aim], shown.came, at, *maps))
                aims.append(aim)
                digests.append(digest.digest())
                inputs.append(seen.digest())
                names.write(at.replace("\n", " ") + "\n")
            advance()
    for writer in writers.values():
        writer.close()
    if not aims:
        raise UserError(f"{table.name}: no row of the {part} part has a {next(iter(spec.columns))} in range")
    y = np.asarray(aims, dtype=np.int64 if spec.target is None else np.float32)
    if placed is not None:
        placed.close()
    else:
        np.save(folder / f"{part}.y.npy", y)
    return {
        "rows": len(y),
        "content": _together(digests),
        "ordered": sha256(b"".join(digests)),
        "labels": sha256(y.astype("<i8").tobytes()) if spec.label is not None else None,
        **_moments(writers.values()),
        "jpeg": any(writer.jpeg for writer in writers.values()),
        "digests": digests,
        "inputs": inputs,
        "ids": ids,
    }


def _moments(writers: Iterable[Writer]) -> dict[str, list[int] | None]:
    """Sums and sums of squares of the pixel values, by channel, of a set with one input of pictures of one size."""
    found = [moments for writer in writers if (moments := writer.moments()) is not None]
    sums, squares = found[0] if len(found) == 1 else (None, None)
    return {"sums": sums, "squares": squares}


def _columns(spec: SetSpec, table: Table) -> list[str]:
    """Columns to read, checked against the file's schema."""
    wanted = list(spec.columns)
    if table.schema is None:
        return wanted
    file = table.name
    for name, what in spec.columns.items():
        if name not in table.schema.names:
            raise UserError(
                f"{file}: column {name!r} ({what}) is missing{nearest(name, table.schema.names)}; "
                f"there are {', '.join(table.schema.names)}"
            )
    for column, check, what in _typed(spec):
        found = table.schema.field(column).type
        if not check(found):
            several = MULTI_LABEL if pa.types.is_nested(found) else ""
            raise UserError(f"{file}: column {column!r} is of type {found}{several}, {what} are expected")
    return wanted


def _same_classes(parts: Mapping[Part, Table]) -> None:
    """Refuses parts whose class folders differ: classes are numbered by the order of their names."""
    first = parts["train"]
    for other in parts.values():
        if first.classes is None or other.classes is None or first.name == other.name:
            continue
        if wrong := differing({Path(first.name): first.classes, Path(other.name): other.classes}):
            raise UserError(wrong)


def _every_class(spec: SetSpec, parts: Mapping[Part, Table], y: Mapping[Part, NDArray[Any]], place: Place) -> None:
    """Refuses a class that one part has and another has not; says how many have no row at all."""
    assert spec.label is not None
    names = parts["train"].classes or spec.label.names or [str(label) for label in range(spec.label.classes)]
    rows = {part: np.bincount(y[part], minlength=spec.label.classes) for part in parts}
    pairs: list[tuple[Part, Part]] = [(part, "train") for part in parts] + [("train", part) for part in parts]
    for part, other in pairs:
        lacking = [names[int(label)] for label in np.flatnonzero((rows[part] == 0) & (rows[other] > 0))]
        if lacking:
            raise UserError(
                f"{parts[part].name}: no row of class {some(lacking)} in the {part} part, which the {other} part has; "
                "give both parts rows of every class"
            )
    absent = int((rows["train"] == 0).sum())
    if absent:
        place.progress.say(f"{spec.name}: {absent} of its {spec.label.classes} classes have no row in either part")


def _typed(spec: SetSpec) -> list[tuple[str, Any, str]]:
    """Columns whose type the schema tells: name, predicate of the Arrow type, what is expected."""

    def number(kind: pa.DataType) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))

    found: list[tuple[str, Any, str]] = []
    if spec.label is not None:
        named = spec.label.names is not None
        found.append((spec.label.column, is_text if named else pa.types.is_integer, "texts" if named else WHOLE))
    if spec.target is not None:
        found.append((spec.target.column, number, "numbers"))
    found += [(g.rate_column, number, "numbers") for g in spec.inputs.values() if isinstance(g, SoundInput)]
    return found


def _aim(spec: SetSpec, row: dict[str, Any], at: str) -> int | float | None:
    """The row's label or target; None for a row that is left out, 0 of one of places, which come apart."""
    if spec.objects is not None or spec.map is not None:
        return 0
    if spec.label is not None:
        label = row[spec.label.column]
        if spec.label.names is not None and isinstance(label, str):
            if label not in spec.label.names:
                hint = nearest(label, spec.label.names)
                raise UserError(f"{at}, column {spec.label.column!r}: {label!r} is no class of {spec.name}{hint}")
            return spec.label.names.index(label)
        if label is None:
            raise UserError(f"{at}, column {spec.label.column!r}: label None is none; leave rows without a label out")
        if not isinstance(label, int) or not 0 <= label < spec.label.classes:
            unlabelled = " (-1 often stands for a row without a label: leave such rows out)" if label == -1 else ""
            raise UserError(
                f"{at}, column {spec.label.column!r}: label {label} is not one of 0 to "
                f"{spec.label.classes - 1}{unlabelled}"
            )
        return label
    assert spec.target is not None
    low, high = spec.target.range
    value = row[spec.target.column]
    if value is None or not low <= value <= high:
        if value is not None and spec.target.outside == "drop":
            return None
        raise UserError(f"{at}, column {spec.target.column!r}: {value} is not within {low:g} to {high:g}")
    return float(value)


def _is_of(spec: SetSpec, row: dict[str, Any]) -> bool:
    """Whether a row of the files is one of the set."""
    return all(row[column] == value for column, value in spec.only.items())


def _placed(spec: SetSpec, base: Path, rows: int) -> ObjectsWriter | MapsWriter | None:
    """What writes a part's targets where these are places in pictures."""
    if spec.objects is not None:
        (given,) = spec.inputs.values()
        return ObjectsWriter(spec.objects, _fit(spec), base, kept=isinstance(given, PictureInput))
    return MapsWriter(spec.map, _fit(spec), base, rows) if spec.map is not None else None


def _fit(spec: SetSpec) -> Fit:
    """Of the one input of pictures."""
    (given,) = spec.inputs.values()
    assert isinstance(given, ImageInput | PictureInput)
    return Fit.of(given)


def _seen_once(column: str, value: Any, at: str, ids: dict[Any, str]) -> None:
    if value in ids:
        raise UserError(f"{at}, column {column!r}: {value!r} stands at {ids[value]} already; ids must differ")
    ids[value] = at


def _distinct(spec: SetSpec, parts: Mapping[Part, dict[str, Any]]) -> None:
    """No id stands in two parts."""
    seen: dict[Any, str] = {}
    for found in parts.values():
        for value, at in found["ids"].items():
            if value in seen:
                raise UserError(
                    f"{at}, column {spec.id!r}: {value!r} stands at {seen[value]} too; the parts must not share rows"
                )
        seen |= found["ids"]
