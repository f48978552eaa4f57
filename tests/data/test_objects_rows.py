"""Rows with objects: what is packed, what is cut, and what is refused with its file, row and object."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kdbench import data
from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec, set_spec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset
from kdbench.specs.data import Data, Subset

ROWS = [
    {"bbox": [[2.0, 4.0, 10.0, 8.0], [-0.5, 0.0, 4.0, 4.0]], "category": [1, 0], "area": [80, 10], "iscrowd": [0, 1]},
    {"bbox": [], "category": [], "area": [], "iscrowd": []},
    {"bbox": [[0.0, 0.0, 40.0, 20.0]], "category": [1], "area": [800], "iscrowd": [0]},
]  # fmt: skip


def spec(**changes: Any) -> SetSpec:
    body: dict[str, Any] = {
        "name": "few", "title": "Few", "folders": ["few"], "licence": "none", "megabytes": 1,
        "inputs": {"image": {"kind": "image", "column": "image", "size": [10, 20], "fit": "scale", "mean": [0.5],
                             "std": [0.5]}},
        "objects": {"column": "objects", "classes": ["one", "two"]}, "id": "name",
    }  # fmt: skip
    return SetSpec.model_validate({**body, **changes})


def written(folder: Path, rows: list[Any], **columns: list[Any]) -> Path:
    picture = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 10, 10)).save(picture, "PNG")
    for part in ("train", "test"):
        names = [f"{part}{number}" for number in range(len(rows))]
        held = {"name": names, "image": [{"bytes": picture.getvalue()}] * len(rows), "objects": rows, **columns}
        (folder / "few").mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.table(held), folder / "few" / f"{part}.parquet")
    return folder


def loaded(folder: Path, of: SetSpec | None = None) -> Dataset:
    return described.load(of or spec(), {}, Place(folder, folder / "cache", Progress.silent()))


def test_boxes_are_scaled_with_their_pictures_and_areas_are_as_they_came(tmp_path):
    found = loaded(written(tmp_path, ROWS))
    assert found.train.x["image"].shape == (3, 3, 10, 20)
    y = found.train.y
    assert y.tolist() == [[[1, 1, 2, 6, 6], [0, 0, 0, 1.75, 2]], [], [[1, 0, 0, 20, 10]]]
    assert y.area.tolist() == [80, 10, 800]
    assert y.ignore.tolist() == [False, True, False]
    assert y.origin.tolist() == [[20, 40]] * 3
    assert found.classes == 2
    assert found.class_names == ("one", "two")
    assert y[torch.tensor([2])].area.tolist() == [800]


def test_lists_of_objects_names_of_classes_and_other_corners_are_read(tmp_path):
    rows = [[{"box": [1.0, 2.0, 5.0, 6.0], "kind": "two"}], []]
    objects = {"column": "objects", "classes": ["one", "two"], "boxes": "xyxy", "bbox": "box", "category": "kind"}
    y = loaded(written(tmp_path, rows), spec(objects=objects)).train.y
    assert y.tolist() == [[[1, 0.5, 1, 2.5, 3]], []]
    assert y.ignore is None
    assert y.area.tolist() == [16]


def test_rows_of_other_values_are_left_out(tmp_path):
    written(tmp_path, ROWS, modality=[0, 1, 0])
    found = loaded(tmp_path, spec(only={"modality": 0}))
    assert found.train.y.counts.tolist() == [2, 1]
    assert loaded(tmp_path).train.y.counts.tolist() == [2, 0, 1]


def test_content_that_differs_in_a_box_or_in_size_is_other_data(tmp_path):
    one = loaded(written(tmp_path / "a", ROWS)).identity()
    other = [{**ROWS[0], "bbox": [[2.0, 4.0, 10.0, 8.5], [-0.5, 0.0, 4.0, 4.0]]}, *ROWS[1:]]
    assert loaded(written(tmp_path / "b", other)).identity() != one
    image = {"kind": "image", "column": "image", "size": [10, 10], "fit": "scale", "mean": [0.5], "std": [0.5]}
    assert loaded(tmp_path / "a", spec(inputs={"image": image})).identity() != one
    assert loaded(tmp_path / "a").identity() == one


def bad(**changes: Any) -> list[Any]:
    return [ROWS[1], {**ROWS[2], **changes}]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            bad(bbox=[[0.0, 0.0, 0.0, 5.0]]),
            r"train.parquet row 1, column 'objects', object 0: box \(0, 0, 0, 5\)",
        ),
        (bad(bbox=[[30.0, 0.0, 20.0, 5.0]]), r"row 1.*object 0: box \(30, 0, 50, 5\) .* outside its picture of 40x20"),
        (bad(bbox=[[0.0, 0.0, float("nan"), 5.0]]), "row 1.*holds a number that is not finite"),
        (bad(bbox=[[0.0, 5.0]]), "row 1.*a box of four numbers is expected"),
        (bad(category=[2]), "row 1.*object 0: class 2 is not one of 0 to 1"),
        (bad(category=[0, 1]), "row 1.*objects have 1 bbox, 2 category"),
        (bad(area=[990]), "row 1.*object 0: area 990 is no number of pixels that a picture of 40x20 has"),
        (bad(iscrowd=[2]), "row 1.*object 0: iscrowd is 2, 0 or 1 is expected"),
        ([{"bbox": 3, "category": 1}], "row 0.*: bbox is 3; a list of one entry an object is expected"),
    ],
)
def test_what_is_wrong_is_told_by_file_row_and_object(tmp_path, rows, line):
    with pytest.raises(UserError, match=line):
        loaded(written(tmp_path, rows))


def test_twice_the_same_id_and_an_unknown_class_are_told(tmp_path):
    written(tmp_path, ROWS[:2], name=["a", "a"])
    with pytest.raises(UserError, match=r"row 1, column 'name': 'a' stands at train.parquet row 0 already"):
        loaded(tmp_path)
    rows = [[{"bbox": [1.0, 2.0, 5.0, 6.0], "category": "twoo"}]]
    with pytest.raises(UserError, match=r"object 0: 'twoo' is no class of the set .did you mean 'two'"):
        loaded(written(tmp_path / "b", rows))
    with pytest.raises(UserError, match="objects without 'category'"):
        loaded(written(tmp_path / "c", [{"bbox": [[0.0, 0.0, 1.0, 1.0]], "kind": [1]}]))


def coco(folder: Path, **changes: Any) -> Path:
    """A set as COCO writes it, of two pictures, one of them without objects."""
    for part in ("train", "test"):
        (folder / "few" / part).mkdir(parents=True, exist_ok=True)
        for name in ("a.png", "b.png"):
            Image.new("RGB", (40, 20), (9, 9, len(part) + ord(name[0]))).save(folder / "few" / part / name)
        body = {
            "images": [{"id": f"{part}7", "file_name": "a.png"}, {"id": f"{part}3", "file_name": "b.png"}],
            "categories": [{"id": 5, "name": "two"}, {"id": 1, "name": "one"}],
            "annotations": [
                {"id": 1, "image_id": f"{part}3", "category_id": 5, "bbox": [2, 4, 10, 8], "area": 60, "iscrowd": 0},
                {"id": 2, "image_id": f"{part}3", "category_id": 1, "bbox": [0, 0, 40, 20], "area": 800, "iscrowd": 1},
            ],
            **changes,
        }
        (folder / "few" / f"{part}.json").write_text(json.dumps(body))
    return folder


def test_a_coco_file_beside_its_pictures_is_read_and_their_content_counts(tmp_path):
    found = loaded(coco(tmp_path))
    assert found.train.y.tolist() == [[], [[1, 1, 2, 6, 6], [0, 0, 0, 20, 10]]]
    assert found.train.y.area.tolist() == [60, 800]
    assert found.train.y.ignore.tolist() == [False, True]
    assert found.train.x["image"][:, 2, 0, 0].tolist() == [102, 103]
    Image.new("RGB", (40, 20), (1, 1, 1)).save(tmp_path / "few" / "train" / "a.png")
    assert loaded(tmp_path).identity() != found.identity()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"images": [{"id": 7, "file_name": "c.png"}]}, r"train.json: annotation 0 .id 1.: there is no picture of id"),
        ({"images": [{"id": "train3", "file_name": "c.png"}, {"id": "test3", "file_name": "c.png"}]},
         r"train.json: the picture 'c.png' .id 'train3'. is missing; it is looked for as .*few/train/c.png"),
        ({"images": [{"id": 3, "file_name": "a.png"}] * 2}, r"train.json: picture 1 has the id 3 of another one"),
        ({"categories": [{"id": 5, "name": "twoo"}]}, r"category 'twoo' is no class of the set .did you mean 'two'"),
        ({"categories": []}, r"annotation 0 .id 1.: there is no category of id 5"),
        ({"annotations": None}, r"train.json: a COCO file has lists of images, annotations, categories"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_coco_file_is_told(tmp_path, changes, line):
    with pytest.raises(UserError, match=line):
        loaded(coco(tmp_path, **changes))


def test_a_part_that_is_not_there_is_told_with_what_could_be(tmp_path):
    (tmp_path / "few").mkdir()
    with pytest.raises(UserError, match=r"no part train; train\*.parquet.*a COCO file train.json.*Pascal VOC"):
        loaded(tmp_path)


def test_pictures_are_drawn_by_number_whatever_they_hold(tmp_path):
    found = loaded(written(tmp_path, ROWS))
    drawn = found.subset(Subset(rows=2), 0)
    assert len(drawn.train.y) == 2
    assert drawn.whole is not None
    assert {found.subset(Subset(rows=2), seed).drawn for seed in range(6)} > {drawn.drawn}
    with pytest.raises(UserError, match="has 3 training rows, 4 are asked for"):
        found.subset(Subset(rows=4), 0)
    with pytest.raises(UserError, match="no classes to draw from"):
        found.subset(Subset(per_class=1), 0)
    assert found.head(2).train.y.counts.tolist() == [2, 0]


def test_a_set_has_one_aim_and_objects_one_picture():
    label = {"column": "label", "classes": 2}
    with pytest.raises(ValueError, match="one of label, target, objects and map"):
        spec(label=label)
    inputs = {"image": {"kind": "picture", "column": "image", "size": 8, "resize": 8, "mean": [0.5], "std": [0.5]}}
    with pytest.raises(ValueError, match="objects of one input of kind image"):
        spec(inputs=inputs)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "rows", "objects"), [("bccd", 205, 2804), ("nuclei256", 252, 6991)])
def test_the_shared_sets_are_those_that_their_names_stand_for(tmp_path, name, rows, objects):
    folder = Path(os.environ["KDBENCH_DATA"])
    if set_spec(name).find(folder, None) is None:
        pytest.skip(f"{name} is not in KDBENCH_DATA")
    found = data.load(Data(source=name), Place(folder, tmp_path, Progress.silent()))
    assert found.official
    assert found.train.y.counts.sum() == objects
    assert len(found.train.y) == rows
