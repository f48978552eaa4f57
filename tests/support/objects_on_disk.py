"""Pictures with objects written as COCO and as Pascal VOC write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = ("bolt", "nut")
SIZE = (48, 64)


def scenes(count: int, seed: int) -> list[tuple[np.ndarray, list[tuple[int, list[int]]]]]:
    """Pictures with up to two bright squares each, and their classes and boxes; the first has one, the second none."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        pixels = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
        own = []
        for _ in range(number if number < 2 else int(rng.integers(0, 3))):
            label, side = int(rng.integers(2)), int(rng.integers(8, 20))
            x, y = int(rng.integers(0, SIZE[1] - side)), int(rng.integers(0, SIZE[0] - side))
            pixels[y : y + side, x : x + side, label] = 220
            own.append((label, [x, y, x + side, y + side]))
        found.append((pixels, own))
    return found[::-1] if count == 2 else [found[1], found[0], *found[2:]]


def coco(folder: Path, parts: dict[str, int], masks: bool = False, names: Sequence[str] = NAMES) -> Path:
    """A folder as COCO has it; ids of categories do not begin at 0."""
    categories = (7, 3)
    (folder / "annotations").mkdir(parents=True)
    for seed, (part, count) in enumerate(parts.items()):
        (folder / part).mkdir()
        made: dict[str, Any] = {"images": [], "annotations": []}
        made["categories"] = [{"id": number, "name": name} for number, name in zip(categories, names, strict=True)]
        for number, (pixels, objects) in enumerate(scenes(count, seed), 10):
            Image.fromarray(pixels).save(folder / part / f"{number}.png")
            made["images"].append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
            for label, (x0, y0, x1, y1) in objects:
                one = {"id": len(made["annotations"]), "image_id": number, "category_id": categories[label],
                       "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}  # fmt: skip
                if masks:
                    one["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
                made["annotations"].append(one)
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(made))
    return folder


def voc(folder: Path, parts: dict[str, int], names: Sequence[str] = NAMES) -> Path:
    """A folder as Pascal VOC has it."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for seed, (part, count) in enumerate(parts.items()):
        listed = []
        for number, (pixels, objects) in enumerate(scenes(count, seed)):
            name = f"{part}{number:03d}"
            listed.append(name)
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            said = "".join(
                f"<object><name>{names[label]}</name><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
                f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
                for label, (x0, y0, x1, y1) in objects
            )
            text = f"<annotation><filename>{name}.jpg</filename>{said}</annotation>"
            (folder / "Annotations" / f"{name}.xml").write_text(text)
        (folder / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(listed) + "\n")
    return folder
