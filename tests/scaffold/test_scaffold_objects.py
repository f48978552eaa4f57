"""``kdbench new task --coco`` and ``--voc``: a task that runs on folders as people have them, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from objects_on_disk import coco, scenes, voc
from PIL import Image

import kdbench
from kdbench import scaffold
from kdbench.base.errors import UserError
from kdbench.base.yamlfile import read_as
from kdbench.data import Place
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset
from kdbench.specs.task import TaskSpec


def made(form: Any, where: Path, to: Path) -> tuple[TaskSpec, SetSpec, list[str]]:
    found = scaffold.new_task("mine", form, str(where), here=to)
    task = read_as(TaskSpec, to / "mine.yaml", name="mine")
    return task, read_as(SetSpec, to / "sets" / "mine.yaml", name="mine"), list(found.notes)


def rows(spec: SetSpec, to: Path) -> Dataset:
    return described.load(spec, {}, Place(None, to / "cache"))


def as_they_came(spec: SetSpec) -> SetSpec:
    """A set whose pictures keep their size."""
    image = spec.inputs["image"].model_copy(update={"size": (48, 64)})
    return spec.model_copy(update={"inputs": {"image": image}})


def wanted(count: int, seed: int) -> list[list[list[float]]]:
    return [[[float(label), *map(float, box)] for label, box in own] for _, own in scenes(count, seed)]


def test_a_coco_folder_becomes_a_task_of_detection(tmp_path: Path) -> None:
    task, spec, notes = made("coco", coco(tmp_path / "a", {"train2017": 6, "val2017": 4}), tmp_path)
    assert (task.kind, task.score.primary) == ("detection", "ap")
    assert spec.parts["train"] == ["train2017"]
    assert any("64x64" in note for note in notes)
    found = rows(as_they_came(spec), tmp_path)
    assert found.class_names == ("bolt", "nut")
    assert found.train.y.tolist() == wanted(6, 0)
    assert found.test.y.tolist() == wanted(4, 1)
    assert found.train.y.masks is None


def test_a_coco_folder_with_masks_becomes_a_task_of_instance_segmentation(tmp_path: Path) -> None:
    task, spec, _ = made("coco", coco(tmp_path / "a", {"train": 6, "test": 4}, masks=True), tmp_path)
    assert (task.kind, task.score.primary) == ("instance_segmentation", "mask_ap")
    y = rows(spec, tmp_path).train.y
    assert y.masks is not None
    assert y.shapes().flatten(1).any(1).all()


def test_where_some_objects_have_no_mask_it_is_said(tmp_path: Path) -> None:
    folder = broken(value("segmentation", []), tmp_path)
    task, _, notes = made("coco", folder, tmp_path)
    assert task.kind == "detection"
    assert any("1 of " in note and "have no mask, so the task is of boxes alone" in note for note in notes)


def test_a_voc_folder_becomes_a_task_and_corners_count_from_1(tmp_path: Path) -> None:
    folder = voc(tmp_path / "a", {"train": 6, "val": 3, "test": 4})
    file = folder / "Annotations" / "train000.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    (folder / "ImageSets/Main/bolt_train.txt").write_text("train000 1\n")
    task, spec, notes = made("voc", folder, tmp_path)
    assert task.kind == "detection"
    assert {part: names[0] for part, names in spec.parts.items()} == {"train": "train", "test": "test", "val": "val"}
    assert any("validation rows" in note for note in notes)
    found = rows(as_they_came(spec), tmp_path)
    assert found.train.y.tolist() == wanted(6, 0)
    assert found.train.y.ignore.tolist() == [True, *[False] * (len(found.train.y.labels) - 1)]
    assert found.class_names == ("bolt", "nut")


def test_folders_of_xml_files_beside_their_pictures_and_one_part_alone(tmp_path: Path) -> None:
    source, own = voc(tmp_path / "a", {"train": 10}), tmp_path / "b" / "train"
    own.mkdir(parents=True)
    for folder in ("Annotations", "JPEGImages"):
        for file in (source / folder).iterdir():
            file.rename(own / file.name)
    _, spec, notes = made("voc", own.parent, tmp_path)
    assert spec.test_every == 5
    assert any("no test part" in note for note in notes)
    found = rows(spec, tmp_path)
    assert (len(found.train.y), len(found.test.y)) == (8, 2)


def broken(change: Any, to: Path) -> Path:
    folder = coco(to / "a", {"train": 4, "test": 2}, masks=True)
    file = folder / "annotations" / "instances_train.json"
    held = json.loads(file.read_text())
    change(held, folder)
    file.write_text(json.dumps(held))
    return folder


def twice(held: dict[str, Any], folder: Path) -> None:
    held["images"].append(held["images"][0])


def gone(held: dict[str, Any], folder: Path) -> None:
    (folder / "train" / "10.png").unlink()


def unnamed(held: dict[str, Any], folder: Path) -> None:
    del held["categories"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (twice, "instances_train.json: picture 4 has the id 10 of another one"),
        (gone, "instances_train.json: the picture '10.png' .id 10. is missing"),
        (unnamed, "instances_train.json: a COCO file has lists of images, annotations, categories"),
    ],
)
def test_coco_files_that_are_wrong_are_named_before_anything_is_written(change: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line):
        made("coco", broken(change, tmp_path), tmp_path)
    assert not (tmp_path / "mine.yaml").exists()


def test_two_files_of_one_part_are_refused_before_and_after_a_task_is_written(tmp_path: Path) -> None:
    folder = coco(tmp_path / "a", {"train": 3, "test": 2})
    _, spec, _ = made("coco", folder, tmp_path)
    (folder / "train.json").write_text((folder / "annotations" / "instances_train.json").read_text())
    line = "train.json and annotations/instances_train.json are both COCO files of the part train"
    with pytest.raises(UserError, match=line):
        rows(spec, tmp_path)
    with pytest.raises(UserError, match=line):
        scaffold.new_task("other", "coco", str(folder), here=tmp_path)


def test_boxes_without_a_side_are_left_out_where_the_set_says_so(tmp_path: Path) -> None:
    _, spec, _ = made("coco", broken(value("bbox", [6.0, 10.0, 1e-9, 5.0]), tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"object 0: box .* has no area; leave it out by `empty: drop`"):
        rows(spec, tmp_path)
    spec = spec.model_copy(update={"objects": spec.objects.model_copy(update={"empty": "drop"})})
    found = rows(spec, tmp_path).train.y
    assert found.counts.tolist()[0] == 0
    assert len(found.labels) == int(found.counts.sum())
    if found.masks is not None:
        assert found.shapes().flatten(1).any(1).all()


def value(key: str, to: Any) -> Any:
    def change(held: dict[str, Any], folder: Path) -> None:
        held["annotations"][0][key] = to

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            value("bbox", [60.0, 10.0, 30.0, 5.0]),
            "picture 0 .10.png.*object 0: box .* lies outside its picture of 64x48",
        ),
        (value("bbox", [6.0, 10.0, 0.0, 5.0]), "object 0: box .* has no area"),
        (value("category_id", 99), "annotation 0 .id 0.: there is no category of id 99"),
        (value("image_id", 99), "annotation 0 .id 0.: there is no picture of id 99"),
        (value("segmentation", [[1, 1, 5, 5]]), "object 0, polygon 0: 4 numbers are no polygon"),
        (
            value("segmentation", {"size": [64, 48], "counts": [3072]}),
            "its mask is of 48x64 pixels, its picture of 64x48",
        ),
        (value("segmentation", {"size": [48, 64], "counts": [9, 9]}), "run lengths sum to 18"),
    ],
)
def test_rows_that_are_wrong_are_named_with_file_and_object(change: Any, line: str, tmp_path: Path) -> None:
    _, spec, _ = made("coco", broken(change, tmp_path), tmp_path)
    with pytest.raises(UserError, match=line):
        rows(spec, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("<name>", "<name>no", "'nonut' is no class of the set"),
        ("<xmin>", "<xmin>x", "object 0 .nut.: bndbox/xmin is 'x"),
        ("</annotation>", "", "train000.xml: cut off or not readable"),
        ("<annotation>", "<?xml version='1.0' encoding='none'?><annotation>", "train000.xml: cut off or not readable"),
        ("<annotation>", "<annotation><size><width>9</width><height>9</height></size>",
         "train000.xml: its objects are those of a picture of 9x9, the picture has 64x48"),
        ("train000.jpg", "train001.jpg", "train001.xml: its picture train001.jpg is that of train000.xml too"),
        ("<difficult>0", "<difficult>2", "object 0 .nut.: difficult is '2', 0, 1, Unspecified are known"),
        ("<difficult>0", "<difficult>Unspecified", None),
        ("train000.jpg", "x" * 5000, None),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "declares a document type or entities"),
        ("train000.jpg", "../train000.jpg", None),
    ],
)  # fmt: skip
def test_annotations_that_are_wrong_are_named(old: str, new: str, line: str | None, tmp_path: Path) -> None:
    folder = voc(tmp_path / "a", {"train": 4, "test": 2})
    _, spec, _ = made("voc", folder, tmp_path)
    file = folder / "Annotations" / "train000.xml"
    file.write_text(file.read_text().replace("bolt", "nut").replace(old, new, 1))
    if line is None:  # a path out of the folder is no name; the picture called like the file is taken
        assert len(rows(spec, tmp_path).train.y) == 4
        return
    with pytest.raises(UserError, match=line):
        rows(spec, tmp_path)


def test_lists_and_folders_that_are_wrong_are_named(tmp_path: Path) -> None:
    folder = voc(tmp_path / "a", {"train": 4, "test": 2})
    (folder / "JPEGImages" / "train001.jpg").unlink()
    with pytest.raises(UserError, match=r"train001.xml: its picture 'train001.jpg' is missing"):
        made("voc", folder, tmp_path)
    (folder / "Annotations" / "train001.xml").unlink()
    with pytest.raises(UserError, match=r"train.txt:2: .*the annotation of 'train001', is missing"):
        made("voc", folder, tmp_path)
    (folder / "ImageSets/Main/train.txt").write_text("train000\n../Annotations/train002\n")
    with pytest.raises(UserError, match=r"train.txt:2: '../Annotations/train002' is no name of a file in"):
        made("voc", folder, tmp_path)
    (folder / "ImageSets/Main/train.txt").write_text("train000\ntrain000\n")
    with pytest.raises(UserError, match=r"train.txt:2: 'train000' stands in line 1 already"):
        made("voc", folder, tmp_path)
    for form, line in (("coco", "no COCO file; train.json"), ("voc", "no part as Pascal VOC has it")):
        with pytest.raises(UserError, match=line):
            made(form, tmp_path / "a" / "ImageSets", tmp_path)
        with pytest.raises(UserError, match=f"--{form} .*nowhere: there is no such folder"):
            made(form, tmp_path / "nowhere", tmp_path)
    with pytest.raises(UserError, match="classes are those of the objects"):
        scaffold.new_task("mine", "coco", str(folder), here=tmp_path, label="x")
    (folder / "JPEGImages" / "train000.jpg").write_text("no picture")
    (folder / "ImageSets/Main/train.txt").write_text("train000\n")
    with pytest.raises(UserError, match=r"train000.jpg: no picture that can be read"):
        made("voc", folder, tmp_path)


def test_pictures_are_brought_to_a_size_that_suits_pyramids(tmp_path: Path) -> None:
    folder = coco(tmp_path / "a", {"train": 3, "test": 2})
    for path in (folder / "train").iterdir():
        with Image.open(path) as picture:
            picture.resize((640, 480)).save(path)
    _, spec, _ = made("coco", folder, tmp_path)
    assert spec.inputs["image"].size == (192, 256)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["coco", "masks", "voc"])
def test_the_task_is_checked_and_runs(form: str, tmp_path: Path) -> None:
    parts = {"train": 8, "test": 4}
    source = voc(tmp_path / "a", parts) if form == "voc" else coco(tmp_path / "a", parts, masks=form == "masks")
    here = tmp_path / "own"
    here.mkdir()
    environment = os.environ | {
        "KDBENCH_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(kdbench.__file__).parents[1]),
    }
    for words in (
        ["new", "task", "mine", "--voc" if form == "voc" else "--coco", str(source)],
        ["check", "./mine.yaml"],
        ["evaluate", "--method", "pkd", "--task", "./mine.yaml", "--seed", "0", "--smoke", "--overhead", "off"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "kdbench", *words],
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
