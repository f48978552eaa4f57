"""A part of a data set as COCO writes it: a JSON file of pictures, annotations and categories beside the pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError, nearest
from kdbench.data.decode.specification import SetSpec
from kdbench.data.decode.table import Row, Stated, Table

KEYS = ("images", "annotations", "categories")
FOLDERS = ("{part}", "images/{part}", "images", ".")
"""Where pictures of a part may lie below the set's folder."""


def open_coco(spec: SetSpec, file: Path, folder: Path, part: str) -> Table:
    """The pictures of a part with their objects, in the order of the file; those without any too.

    Args:
        file: the JSON file.
        folder: of the set.
        part: what the part is called.

    Raises:
        UserError: it is no such file, has an id twice, names a picture, category or file that is not there.
    """
    assert spec.objects is not None
    found = contents(file)
    categories = names(by_id(found["categories"], file, "category"), file)
    for name in categories.values():
        if name not in spec.objects.classes:
            raise UserError(f"{file}: category {name!r} is no class of the set{nearest(name, spec.objects.classes)}")
    images = by_id(found["images"], file, "picture")
    objects: dict[Any, list[dict[str, Any]]] = {image: [] for image in images}
    keys = ("bbox", "area", "iscrowd", *([spec.objects.segments] if spec.objects.segments else []))
    for number, annotation in enumerate(by_id(found["annotations"], file, "annotation").values()):
        where = f"{file}: annotation {number} (id {annotation['id']})"
        if not known(annotation.get("image_id"), images):
            raise UserError(f"{where}: there is no picture of id {annotation.get('image_id')!r}")
        if not known(annotation.get("category_id"), categories):
            raise UserError(f"{where}: there is no category of id {annotation.get('category_id')!r}")
        if "bbox" not in annotation:
            raise UserError(f"{where}: it has no bbox")
        kept: dict[str, Any] = {key: annotation[key] for key in keys if key in annotation}
        category = categories[annotation["category_id"]]
        objects[annotation["image_id"]].append(
            {spec.objects.bbox: kept.pop("bbox"), spec.objects.category: category, **kept}
        )
    files = pictures(images, file, folder, part)

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        (given,) = spec.inputs.values()
        for number, (image, path) in enumerate(files.items()):
            row: Row = {given.column: {"bytes": path.read_bytes()} if given.column in columns else None}
            said = images[image]
            row[spec.aim] = Stated.of(objects[image], said.get("height"), said.get("width"))
            if spec.id is not None:
                row[spec.id] = image
            yield f"{file.name} picture {number} ({path.name})", row

    return Table(str(file), [file, *files.values()], len(images), read)


def several(folder: Path, part: str, one: str, other: str) -> str:
    """What to say of two files of one part."""
    return f"{folder}: {one} and {other} are both COCO files of the part {part}; one of them must go"


def contents(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Pictures, annotations and categories of a COCO file.

    Raises:
        UserError: it is no such file.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cut off or not readable ({error}); get the file again") from error
    if not isinstance(found, dict) or any(not isinstance(found.get(key), list) for key in KEYS):
        raise UserError(f"{file}: a COCO file has lists of {', '.join(KEYS)}")
    return {key: found[key] for key in KEYS}


def by_id(entries: list[dict[str, Any]], file: Path, what: str) -> dict[Any, dict[str, Any]]:
    """Entries by their ids.

    Raises:
        UserError: one has no id, or one that is neither a number nor a text, or that of another.
    """
    made: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or "id" not in entry:
            raise UserError(f"{file}: {what} {number} has no id")
        if (
            not isinstance(entry["id"], int | float | str)
            or isinstance(entry["id"], bool)
            or entry["id"] != entry["id"]
        ):
            raise UserError(f"{file}: {what} {number} has the id {entry['id']!r}; a number or a text is expected")
        if entry["id"] in made:
            raise UserError(f"{file}: {what} {number} has the id {entry['id']!r} of another one; ids must differ")
        made[entry["id"]] = entry
    return made


def names(categories: Mapping[Any, Mapping[str, Any]], file: Path) -> dict[Any, str]:
    """The names of categories, by their ids.

    Raises:
        UserError: one has none.
    """
    for number, one in categories.items():
        if not isinstance(one.get("name"), str):
            raise UserError(f"{file}: the category of id {number!r} has the name {one.get('name')!r}; give it a text")
    return {number: one["name"] for number, one in categories.items()}


def pictures(images: Mapping[Any, Mapping[str, Any]], file: Path, folder: Path, part: str) -> dict[Any, Path]:
    """The files of pictures, by their ids.

    Raises:
        UserError: as of :func:`picture`, or two pictures have one file.
    """
    found: dict[Any, Path] = {}
    owners: dict[Path, Any] = {}
    for image, one in images.items():
        path = found[image] = picture(one, image, file, folder, part)
        if path in owners:
            raise UserError(f"{file}: the pictures of ids {owners[path]!r} and {image!r} have one file, {path.name}")
        owners[path] = image
    return found


def known(number: Any, among: Container[Any]) -> bool:
    """Whether it is an id of some entries."""
    return isinstance(number, int | float | str) and not isinstance(number, bool) and number in among


def picture(entry: Mapping[str, Any], image: Any, file: Path, folder: Path, part: str) -> Path:
    """The file of a picture's entry.

    Raises:
        UserError: it has no name, one that leads out of the folder, or is missing.
    """
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{file}: the picture of id {image!r} has no file_name")
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise UserError(f"{file}: the picture {name!r} (id {image!r}) is to lie below {folder}; give its place there")
    places = [folder / place.format(part=part) / name for place in FOLDERS]
    there = next((path for path in places if os.path.isfile(path)), None)  # False of a name that no file can have
    if there is None:
        raise UserError(f"{file}: the picture {name!r} (id {image!r}) is missing; it is looked for as {places[0]}")
    return there
