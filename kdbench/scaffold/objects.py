"""Looks at someone's pictures with objects, as COCO or Pascal VOC writes them, for what a data set file must say."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.data.decode import coco, voc
from kdbench.scaffold import partnames
from kdbench.scaffold.found import VALIDATION, one_part

SAMPLE, LARGEST, STEP = 64, 256, 32
SHAPES = 1.1
"""From pictures whose widths over heights differ by this factor on, they keep their shape and are padded."""
"""Pictures looked at; the longer side that pictures are brought to at most, and what its sides are multiples of."""
HELD = 2**30
"""Bytes of pictures that are held as pixels; more stay compressed on disk and are read when they are drawn."""
COLOURS = 3
MOST = 100
"""Detections of a picture that count, unless some hold more objects."""


@dataclass(frozen=True)
class Seen:
    """What a folder holds.

    Attributes:
        parts: of each part the pictures and how many objects each has.
        classes: names, in the order of their numbers.
        masks: how many objects have one.
    """

    parts: Mapping[str, list[tuple[Path, int]]]
    classes: list[str]
    masks: int


def look(folder: Path, form: str) -> dict[str, Any]:
    """What the templates say of a folder.

    Args:
        form: ``coco`` or ``voc``.

    Raises:
        UserError: it holds no such data, or something in it is wrong.
    """
    seen = _coco(folder) if form == "coco" else _voc(folder)
    parts, every, notes = _split(list(seen.parts))
    if "test" in parts and not any(count for _, count in seen.parts[parts["test"]]):
        raise UserError(f"{folder}: no picture of the part {parts['test']} holds an object; nothing could be scored")
    files = [path for path, _ in seen.parts[parts["train"]]]
    if not files:
        raise UserError(f"{folder}: the part {parts['train']} has no pictures")
    size, mean, std, unequal = _looked(files)
    objects = sum(count for rows in seen.parts.values() for _, count in rows)
    if 0 < seen.masks < objects:
        notes.append(f"{objects - seen.masks} of {objects} objects have no mask, so the task is of boxes alone")
    most = max((count for rows in seen.parts.values() for _, count in rows), default=0)
    rows = len(files) - (len(files) // every if every else 0)
    streamed = sum(map(len, seen.parts.values())) * size[0] * size[1] * COLOURS > HELD
    if streamed:
        notes.append("pictures are read while training, for as pixels they would take more than a gigabyte")
    how = "scaled to lie within" if unequal else "brought to"
    notes.append(f"pictures are {how} {size[1]}x{size[0]}, boxes with them; change `size` and `fit` of the set")
    return {
        "parts": parts, "test_every": every, "rows": rows, "size": size, "mean": mean, "std": std,
        "classes": seen.classes, "masked": 0 < seen.masks == objects, "streamed": streamed,
        "fit": "pad" if unequal else "scale",
        "detections": max(MOST, most), "notes": tuple(notes), "path": str(folder.absolute()),
    }  # fmt: skip


def _split(names: list[str]) -> tuple[dict[str, str], int | None, list[str]]:
    """Training and test part, one in how many rows is held back where there is one part alone, and what to say."""
    found = partnames.pair(names)
    if found is None:
        alone = next((name for name in names if partnames.is_train(name)), names[0])
        parts, every, note = one_part(alone)
        return parts, every, [note.replace(", of each class,", "")]
    train, tests = found
    parts, notes = {"train": train, "test": tests[0]}, []
    if (val := partnames.validation(tests, tests[0])) is not None:
        parts["val"] = val
        notes.append(VALIDATION.format(val))
    return parts, None, notes


def _coco(folder: Path) -> Seen:
    files: dict[str, Path] = {}
    beside = [*sorted(folder.glob("*.json")), *sorted(folder.glob("annotations/instances_*.json"))]
    named = [(path.stem.removeprefix("instances_"), path) for path in beside]
    for part, path in [*named, *((path.parent.name, path) for path in sorted(folder.glob("*/_annotations.coco.json")))]:
        if (other := files.get(part)) is not None:
            one, two = (str(item.relative_to(folder)) for item in (other, path))
            raise UserError(coco.several(folder, part, one, two))
        files[part] = path
    parts, names, masks = {}, [], []
    for part, path in files.items():
        found = coco.contents(path)
        categories, images, objects = (
            coco.by_id(found[key], path, what)
            for key, what in (("categories", "category"), ("images", "picture"), ("annotations", "annotation"))
        )
        names.append(list(coco.names(categories, path).values()))
        counts = Counter(one["image_id"] for one in objects.values() if coco.known(one.get("image_id"), images))
        masks += [bool(one.get("segmentation")) for one in objects.values()]
        files_of = coco.pictures(images, path, folder, part)
        parts[part] = [(file, counts[key]) for key, file in files_of.items()]
    if not parts:
        raise UserError(
            f"{folder}: no COCO file; train.json, train/_annotations.coco.json or annotations/instances_train.json is "
            "expected, beside a folder of its pictures"
        )
    classes = list(dict.fromkeys(name for own in names for name in own))
    return Seen(parts, classes, sum(masks))


def _voc(folder: Path) -> Seen:
    lists = [path.stem for path in sorted(folder.glob(f"{voc.LISTS}/*.txt")) if path.is_file()]
    whole = [name for name in lists if "_" not in name and not (name == "trainval" and "train" in lists)]
    inner = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and voc.listing(folder, path.name)]
    parts: dict[str, list[tuple[Path, int]]] = {}
    classes: set[str] = set()
    for part in whole or [name for name in inner if name != voc.ANNOTATIONS]:
        found = voc.listing(folder, part)
        assert found is not None
        roots = {path: voc.annotation(path) for path in voc.named(found, folder)}
        parts[part] = []
        for path, picture in voc.pictures_of(roots, folder).items():
            own = voc.objects(roots[path], path)
            classes |= {name for name, _, _ in own}
            parts[part].append((picture, len(own)))
    if not parts:
        raise UserError(
            f"{folder}: no part as Pascal VOC has it; {voc.LISTS}/train.txt beside {voc.ANNOTATIONS}/ and "
            f"{voc.IMAGES}/, or a folder train/ of XML files and pictures is expected"
        )
    if not classes:
        raise UserError(f"{folder}: no annotation holds an object")
    return Seen(parts, sorted(classes), 0)


def _looked(files: list[Path]) -> tuple[list[int], list[float], list[float], bool]:
    """Height and width that pictures are brought to; mean and deviation of their colours; whether shapes differ."""
    sizes, means, squares = [], [], []
    for pixels in _pixels(files[:: max(1, len(files) // SAMPLE)][:SAMPLE]):
        sizes.append(pixels.shape[:2])
        flat = pixels.reshape(-1, 3) / 255
        means.append(flat.mean(0))
        squares.append((flat**2).mean(0))
    typical = [float(side) for side in np.median(np.asarray(sizes), 0)]
    scale = min(1.0, LARGEST / max(typical))
    size = [max(2 * STEP, round(side * scale / STEP) * STEP) for side in typical]
    mean = np.mean(means, 0)
    std = np.sqrt(np.maximum(np.mean(squares, 0) - mean**2, 1e-4))
    shapes = [width / height for height, width in sizes]
    unequal = max(shapes) > SHAPES * min(shapes)
    return size, [round(float(v), 3) for v in mean], [round(float(v), 3) for v in std], unequal


def _pixels(files: list[Path]) -> Iterator[np.ndarray]:
    for path in files:
        try:
            with Image.open(io.BytesIO(path.read_bytes())) as picture:
                yield np.asarray(picture.convert("RGB"), dtype=np.float64)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: no picture that can be read ({error})") from error
