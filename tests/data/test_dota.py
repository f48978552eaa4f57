"""DOTA's own text files: polygons become turned boxes, and what is wrong is told by file and line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.contract.oriented import overlaps
from kdbench.data.decode.dota import rectangle
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset

SHIP = "20 10 40 10 40 20 20 20 ship 0"
LINES = f"imagesource:GoogleEarth\ngsd:0.14\n{SHIP}\n5 25 12 18 16 22 9 29 plane 1\n"


def made(folder: Path, lines: str = LINES, swapped: bool = False) -> Path:
    """A train part of two pictures, the second without objects, and a val part of one."""
    for part, names in (("train", ("P1", "P2")), ("val", ("P3",))):
        texts, images = (
            folder / "dota" / (f"{what}/{part}" if swapped else f"{part}/{what}") for what in ("labelTxt", "images")
        )
        texts.mkdir(parents=True)
        images.mkdir(parents=True)
        for number, name in enumerate(names):
            Image.new("RGB", (64, 32), (9, 9, number)).save(images / f"{name}.png")
            (texts / f"{name}.txt").write_text("" if name == "P2" else LINES if name == "P3" else lines)
    return folder


def loaded(folder: Path) -> Dataset:
    image = {"kind": "image", "column": "image", "size": [32, 64], "mean": [0.5], "std": [0.5]}
    objects = {"column": "objects", "boxes": "cxcywhr", "bbox": "obb", "classes": ["plane", "ship"]}
    body: dict[str, Any] = {
        "name": "dota", "title": "x", "folders": ["dota"], "licence": "none", "megabytes": 1, "objects": objects,
        "inputs": {"image": image}, "parts": {"train": ["train"], "test": ["val"]},
    }  # fmt: skip
    return described.load(SetSpec.model_validate(body), {}, Place(folder, folder / "cache", Progress.silent()))


@pytest.mark.parametrize("swapped", [False, True])
def test_text_files_beside_pictures_are_read(tmp_path: Path, swapped: bool) -> None:
    y = loaded(made(tmp_path, swapped=swapped)).train.y
    assert y.counts.tolist() == [2, 0]
    assert y.labels.tolist() == [1, 0]
    assert y.ignore.tolist() == [False, True]
    assert y.boxes[0].tolist() == pytest.approx([30, 15, 20, 10, 0])
    assert y.boxes[1].tolist() == pytest.approx([10.5, 23.5, 98**0.5, 32**0.5, 45], abs=1e-4)


@pytest.mark.parametrize("degrees", [-90.0, -61.0, -45.0, 0.0, 17.5, 45.0, 89.0])
def test_a_rectangles_corners_give_it_back_and_others_the_smallest_around_them(degrees: float) -> None:
    box = torch.tensor([[30.0, 20.0, 16.0, 6.0, degrees]])
    corners = box_convert(box, "cxcywhr", "xyxyxyxy").view(-1, 2)
    for start in range(4):
        found = torch.tensor([rectangle([tuple(p) for p in corners.roll(start, 0).tolist()])])  # type: ignore[misc]
        assert overlaps(found, box).item() == pytest.approx(1, abs=1e-3)
    inner = [tuple(p) for p in corners.tolist()]
    inner[2] = tuple(((corners[2] + corners[3]) / 2).tolist())  # type: ignore[assignment]
    x, y, width, height, _ = rectangle(inner)  # type: ignore[arg-type]
    assert width * height <= 16 * 6 + 1e-3
    assert math.hypot(x - 30, y - 20) < 8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("20 10 40 10 40 20 ship 0", r"P1.txt:1: eight numbers, a class and 0 or 1 are expected, found '20 10"),
        ("20 10 40 10 40 20 20 x ship 0", r"P1.txt:1: eight numbers"),
        ("20 10 40 10 40 20 20 nan ship 0", r"P1.txt:1: it holds a number that is not finite"),
        (f"{SHIP}\n20 10 40 10 30 10 25 10 ship 0", r"P1.txt:2: the polygon has no area"),
        (f"{SHIP}\n7 7 7 7 7 7 7 7 ship 0", r"P1.txt:2: the polygon has no area"),
        (
            SHIP.replace("ship", "shp"),
            r"P1.txt, column 'objects', object 0: 'shp' is no class of the set",
        ),
        ("120 10 140 10 140 20 120 20 ship 0", r"P1.txt.*object 0: the centre of box .* outside its picture of 64x32"),
    ],
)
def test_lines_that_are_wrong_are_told(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        loaded(made(tmp_path, line))


def test_missing_pictures_and_parts_are_told(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / "dota/train/images/P1.png").rename(folder / "kept.png")
    with pytest.raises(UserError, match=r"P1.txt: its picture is missing; it is looked for as .*train/images/P1.png"):
        loaded(folder)
    (folder / "kept.png").rename(folder / "dota/train/images/P1.png")
    (folder / "dota/val/labelTxt").rename(folder / "dota/val/labels")
    with pytest.raises(UserError, match=r"no part val; .*DOTA's text files in val/labelTxt/ beside val/images/"):
        loaded(folder)
