"""A part of a data set as Pascal VOC writes it: an XML file a picture, and the pictures beside them.

A part is a list of names, ``ImageSets/Main/<part>.txt`` beside ``Annotations`` and ``JPEGImages``, or a folder of the
part's own that holds both kinds of file. Corners count pixels from 1, both ends inclusive. Objects marked as difficult
are neither target nor error.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError, nearest
from kdbench.data.decode.folders import PICTURES, content
from kdbench.data.decode.specification import SetSpec
from kdbench.data.decode.table import Row, Stated, Table

LISTS, ANNOTATIONS, IMAGES = "ImageSets/Main", "Annotations", "JPEGImages"
DIFFICULT = ("0", "1", "Unspecified")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def listing(folder: Path, part: str) -> Path | None:
    """What says which files are a part's: its list, or its folder; None where there is neither."""
    if (found := folder / LISTS / f"{part}.txt").is_file():
        return found
    own = folder / part
    return own if own.is_dir() and next(own.glob("*.xml"), None) is not None else None


def named(listing: Path, folder: Path) -> list[Path]:
    """The XML files of a part, in order.

    Raises:
        UserError: one of the list is missing, stands there twice, or is a path.
    """
    if listing.is_dir():
        return sorted(listing.glob("*.xml"))
    found: dict[str, int] = {}
    for number, line in enumerate(content(listing).decode(errors="replace").splitlines(), 1):
        if not (words := line.split()):
            continue
        if Path(words[0]).name != words[0]:
            raise UserError(f"{listing}:{number}: {words[0]!r} is no name of a file in {folder / ANNOTATIONS}")
        if words[0] in found:
            raise UserError(f"{listing}:{number}: {words[0]!r} stands in line {found[words[0]]} already")
        found[words[0]] = number
        if not os.path.isfile(path := folder / ANNOTATIONS / f"{words[0]}.xml"):
            raise UserError(f"{listing}:{number}: {path}, the annotation of {words[0]!r}, is missing")
    return [folder / ANNOTATIONS / f"{name}.xml" for name in found]


def open_voc(spec: SetSpec, listing: Path, folder: Path) -> Table:
    """The pictures of a part with their objects, in the order of the list or of the names; those without any too.

    Args:
        listing: as of :func:`listing`.
        folder: of the set.

    Raises:
        UserError: an annotation cannot be read, or its picture is missing.
    """
    files = named(listing, folder)
    read_ones = {path: annotation(path) for path in files}
    pictures = pictures_of(read_ones, folder)
    (given,) = spec.inputs.values()
    assert spec.objects is not None
    own = spec.objects

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, one in read_ones.items():
            picture = pictures[path]
            row: Row = {given.column: {"bytes": content(picture)} if given.column in columns else None}
            found = [
                {own.bbox: _as(box, own.boxes), own.category: name, "iscrowd": difficult}
                for name, box, difficult in objects(one, path)
            ]
            row[own.column] = Stated.of(found, *(one.findtext(f"size/{side}") for side in ("height", "width")))
            if spec.id is not None:
                row[spec.id] = path.stem
            yield path.name, row

    return Table(str(listing), [*files, *pictures.values()], len(files), read)


def annotation(path: Path) -> ET.Element:
    """The root of an annotation.

    Raises:
        UserError: it cannot be read, or declares entities, which no annotation needs.
    """
    text = content(path)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise UserError(f"{path}: it declares a document type or entities; an annotation has none")
    try:
        return ET.fromstring(text)  # without entities there is nothing to expand
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two of an encoding that there is not
        raise UserError(f"{path}: cut off or not readable ({error}); get the file again") from error


def objects(root: ET.Element, path: Path) -> list[tuple[str, list[float], bool]]:
    """Class, x0, y0, x1, y1 in pixels from 0, and whether it is difficult, of each object.

    Raises:
        UserError: one has no name, no box of four numbers, or is neither difficult nor not.
    """
    found = []
    for number, one in enumerate(root.iter("object")):
        here = f"{path}: object {number}"
        name = (one.findtext("name") or "").strip()
        if not name:
            raise UserError(f"{here}: it has no name")
        sides: list[float] = []
        for side in SIDES:
            said = one.findtext(f"bndbox/{side}")
            try:
                sides.append(float(said or ""))
            except ValueError as error:
                raise UserError(f"{here} ({name}): bndbox/{side} is {said!r}, a number is expected") from error
        box = [sides[0] - 1, sides[1] - 1, sides[2], sides[3]]
        difficult = (one.findtext("difficult") or "0").strip()
        if difficult not in DIFFICULT:
            raise UserError(f"{here} ({name}): difficult is {difficult!r}, {', '.join(DIFFICULT)} are known")
        found.append((name, box, difficult == "1"))
    return found


def pictures_of(annotations: Mapping[Path, ET.Element], folder: Path) -> dict[Path, Path]:
    """The pictures of annotations.

    Raises:
        UserError: as of :func:`picture_of`, or two annotations are of one picture.
    """
    found: dict[Path, Path] = {}
    owners: dict[Path, Path] = {}
    for path, root in annotations.items():
        picture = found[path] = picture_of(path, root, folder)
        if picture in owners:
            raise UserError(f"{path}: its picture {picture.name} is that of {owners[picture].name} too")
        owners[picture] = path
    return found


def picture_of(path: Path, root: ET.Element, folder: Path) -> Path:
    """The picture of an annotation: that which it names, or the one that is called like it.

    Raises:
        UserError: it is missing.
    """
    name = (root.findtext("filename") or "").strip()
    places = [path.parent, folder / IMAGES]
    for place in places:
        if name and Path(name).name == name and os.path.isfile(place / name):  # False of what can be no file's name
            return place / name
    for place in places:
        for suffix in sorted(PICTURES):
            if (found := place / f"{path.stem}{suffix}").is_file():
                return found
    beside = [item.name for item in places[-1].iterdir()] if places[-1].is_dir() else []
    raise UserError(f"{path}: its picture {name or path.stem!r} is missing{nearest(name or path.stem, beside)}")


def _as(box: list[float], boxes: str) -> list[Any]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0] if boxes == "xywh" else box
