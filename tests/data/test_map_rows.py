"""Rows with maps: what is read of tables and of two folders, what is scaled, and what is refused with file and row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.contract import Maps
from kdbench.data.decode.maps import bordered
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset

LABELS = np.array([[0, 1, 2, 2], [0, 1, 255, 2]], np.uint8)


def spec(size: Any = (2, 4), fit: str = "exact", **of_map: Any) -> SetSpec:
    return SetSpec.model_validate(
        {
            "name": "few", "title": "Few", "folders": ["few"], "licence": "none", "megabytes": 1, "id": "name",
            "inputs": {"image": {"kind": "image", "column": "image", "size": list(size), "fit": fit, "mean": [0.5],
                                 "std": [0.5]}},
            "map": {"column": "map", "classes": ["none", "one", "two"], **of_map},
        }
    )  # fmt: skip


def png(values: Any, mode: str | None = None) -> bytes:
    file = io.BytesIO()
    made = Image.fromarray(values) if mode is None else Image.fromarray(values).convert(mode)
    made.save(file, "PNG")
    return file.getvalue()


def picture(height: int = 2, width: int = 4, value: int = 9) -> bytes:
    return png(np.full((height, width, 3), value, np.uint8))


def written(folder: Path, maps: list[Any], pictures: list[bytes] | None = None) -> Path:
    (folder / "few").mkdir(parents=True, exist_ok=True)
    shown = pictures or [picture(value=number) for number in range(len(maps))]
    for part in ("train", "test"):
        held = {"name": [f"{part}{n}" for n in range(len(maps))], "image": [{"bytes": one} for one in shown],
                "map": [None if one is None else {"bytes": one} for one in maps]}  # fmt: skip
        pq.write_table(pa.table(held), folder / "few" / f"{part}.parquet")
    return folder


def loaded(folder: Path, of: SetSpec | None = None) -> Dataset:
    return described.load(of or spec(), {}, Place(folder, folder / "cache", Progress.silent()))


def test_a_map_is_a_class_a_pixel_and_scaled_to_the_nearest(tmp_path):
    found = loaded(written(tmp_path, [png(LABELS), png(LABELS // 255)]))
    assert isinstance(found.train.y, Maps)
    assert found.train.y.tolist() == [LABELS.tolist(), [[0] * 4, [0, 0, 1, 0]]]
    assert (found.classes, found.class_names) == (3, ("none", "one", "two"))
    larger = loaded(tmp_path, spec(size=(4, 8), fit="scale"))
    assert larger.train.y.labels[0].tolist() == LABELS.repeat(2, 0).repeat(2, 1).tolist()
    assert larger.identity() != found.identity()
    other = loaded(written(tmp_path / "b", [png(LABELS), png(LABELS // 100)]))
    assert other.identity() != found.identity()


def test_values_stand_for_classes_and_palettes_are_read_by_place(tmp_path):
    values = np.array([[7, 8, 11, 11], [7, 8, 0, 11]], np.uint8)
    indexed = Image.fromarray(values)
    indexed.putpalette(list(range(256)) * 3)
    file = io.BytesIO()
    indexed.save(file, "PNG")
    of = spec(values=[7, 8, 11], ignore=[0])
    assert loaded(written(tmp_path, [png(values), file.getvalue()]), of).train.y.tolist() == [LABELS.tolist()] * 2


def test_numbers_of_objects_become_outside_inside_and_border(tmp_path):
    numbers = np.zeros((7, 9), np.uint16)
    numbers[1:6, 0:4], numbers[1:6, 4:8] = 300, 2
    found = bordered(numbers)
    assert found[2:5].tolist() == [[1, 1, 1, 2, 2, 1, 1, 2, 2]] * 3
    assert (found[[0, 1, 5, 6], :8] == 2).all()
    of = spec(size=(7, 9), holds="instances")
    read = loaded(written(tmp_path, [png(numbers)], [picture(7, 9)]), of)
    assert read.train.y.labels[0].tolist() == found.tolist()


def folders(root: Path, part: str, swapped: bool = False, **maps: Any) -> Path:
    for kind in ("images", "maps"):
        (root / "few" / (f"{part}/{kind}" if swapped else f"{kind}/{part}") / "city").mkdir(parents=True, exist_ok=True)
    pictures, of_maps = ((root / "few" / (f"{part}/{k}" if swapped else f"{k}/{part}")) for k in ("images", "maps"))
    for number, (name, values) in enumerate(maps.items()):
        name = part + name
        (pictures / "city" / f"{name}_shot.jpg").write_bytes(picture(value=number + len(part)))
        if values is not None:
            (of_maps / "city" / f"{name}_ids.png").write_bytes(png(values))
        (of_maps / "city" / f"{name}_color.png").write_bytes(picture())
    return root


@pytest.mark.parametrize("swapped", [False, True])
def test_two_folders_are_paired_by_name(tmp_path, swapped):
    for part in ("train", "test"):
        folders(tmp_path, part, swapped, b=LABELS // 255, a=LABELS)
    found = loaded(tmp_path, spec(endings=["_shot", "_ids"]))
    assert found.train.y.labels[0].tolist() == LABELS.tolist()
    assert len(found.train.y) == len(found.test.y) == 2
    assert loaded(tmp_path, spec(endings=["_shot", "_ids"])).identity() == found.identity()


def test_a_picture_without_its_map_and_folders_that_are_not_there_are_told(tmp_path):
    of = spec(endings=["_shot", "_ids"])
    with pytest.raises(UserError, match=r"few: no part train; .* or folders images/train of pictures and maps/train"):
        loaded((tmp_path / "few").mkdir() or tmp_path, of)
    for part in ("train", "test"):
        folders(tmp_path, part, a=LABELS, b=None)
    with pytest.raises(UserError, match=r"trainb_shot.jpg: it has no map; .*/trainb_ids.png is expected"):
        loaded(tmp_path, of)


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        ([png(LABELS), png(LABELS + 1)], r"train.parquet row 1, column 'map': value 3 at row 0, column 2 is no class"),
        ([png(LABELS), None], r"train.parquet row 1, column 'map': no map there"),
        ([png(LABELS.T.copy())], r"row 0, column 'map': a map of 2x4 pixels, its picture has 4x2"),
        ([picture()], r"row 0, column 'map': a map of 3 channels \(RGB\), one of whole numbers is expected"),
        ([b"none"], "row 0, column 'map': 4 bytes that are no picture"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_row(tmp_path, maps, line):
    with pytest.raises(UserError, match=line):
        loaded(written(tmp_path, maps))


@pytest.mark.parametrize(
    ("of_map", "line"),
    [
        ({"values": [1, 1, 2]}, "values are 2 different ones for 3 classes"),
        ({"values": [1, 2, 255]}, "value 255 stands for a class and is ignored"),
        ({"holds": "instances", "classes": ["a", "b"]}, "instances have three classes"),
        ({"classes": ["a", "a"]}, "a name twice"),
    ],
)
def test_what_a_set_cannot_say_of_its_maps(of_map, line):
    with pytest.raises(ValidationError, match=line):
        spec(**of_map)
