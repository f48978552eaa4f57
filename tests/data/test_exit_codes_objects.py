"""Bad pictures with objects at the command line: one line that names file and row, exit code 2, no traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from objects_on_disk import coco

from kdbench import cli, scaffold
from kdbench.data.decode import specification
from kdbench.specs import registry

FILE = "instances_train.json"
Held = dict[str, Any]
Change = Callable[[Held], object]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``kdbench evaluate`` on the task of a COCO folder that was changed after the task was written; the error."""

    def call(change: Change) -> str:
        registry.task_files.cache_clear()
        folder = coco(tmp_path / "a", {"train": 4, "test": 2}, masks=True)
        scaffold.new_task("mine", "coco", str(folder), here=tmp_path)
        file = folder / "annotations" / FILE
        held = json.loads(file.read_text())
        change(held)
        file.write_text(json.dumps(held))
        monkeypatch.setattr(specification, "SETS", tmp_path / "sets")
        monkeypatch.setattr(registry, "task_files", lambda: {"mine": tmp_path / "mine.yaml"})
        registry.task.cache_clear()
        specification.set_spec.cache_clear()
        options = ["--seed", "0", "--overhead", "off", "--device", "cpu", "--out", str(tmp_path / "home")]
        words = ["evaluate", "--method", "plain", "--task", "mine", *options]
        monkeypatch.setattr(sys, "argv", ["kdbench", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        error = capsys.readouterr().err
        assert stop.value.code == 2, error
        assert "Traceback" not in error
        (line,) = error.strip().splitlines()
        return line

    yield call
    registry.task.cache_clear()
    specification.set_spec.cache_clear()


def first(key: str, value: Any) -> Change:
    return lambda held: held["annotations"][0].update({key: value})


def picture(key: str, value: Any) -> Change:
    return lambda held: held["images"][0].update({key: value})


def twice(key: str) -> Change:
    return lambda held: held[key].append(held[key][0])


ROW = f"{FILE} picture 0 (10.png)"
RUNS = {"size": [48, 64], "counts": [3072]}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (first("bbox", [60, 10, 30, 5]), f"{ROW}.*object 0: box (60, 10, 90, 15) as x0, y0, x1, y1 lies outside"),
        (first("bbox", [6, 10, 0, 5]), f"{ROW}.*object 0: box (6, 10, 6, 15) as x0, y0, x1, y1 has no area"),
        (first("bbox", [6, 10, 1e-9, 5]), "object 0: box (6, 10, 6, 15) as x0, y0, x1, y1 has no area; leave it"),
        (first("bbox", [True, 10, 5, 5]), "object 0: a box of four numbers is expected, found [True, 10, 5, 5]"),
        (first("bbox", [10**400, 1, 5, 5]), "object 0: a box of four numbers is expected, found [1000000"),
        (first("bbox", "1234"), f"{ROW}.*object 0: a box of four numbers is expected, found '1234'"),
        (first("area", "large"), f"{ROW}.*object 0: area 'large' is no number of pixels"),
        (first("area", -1), f"{ROW}.*object 0: area -1 is no number of pixels"),
        (first("area", float("nan")), f"{ROW}.*object 0: area nan is no number of pixels"),
        (first("iscrowd", "0"), f"{ROW}.*object 0: iscrowd is '0', 0 or 1 is expected"),
        (first("category_id", 99), f"{FILE}: annotation 0 (id 0): there is no category of id 99"),
        (first("category_id", [7]), f"{FILE}: annotation 0 (id 0): there is no category of id [7]"),
        (first("image_id", {}), f"{FILE}: annotation 0 (id 0): there is no picture of id {{}}"),
        (first("id", True), f"{FILE}: annotation 0 has the id True; a number or a text is expected"),
        (picture("id", float("nan")), f"{FILE}: picture 0 has the id nan; a number or a text is expected"),
        (first("id", [0]), f"{FILE}: annotation 0 has the id [0]; a number or a text is expected"),
        (first("segmentation", [[1, 1, 5, 5]]), f"{ROW}.*object 0, polygon 0: 4 numbers are no polygon"),
        (first("segmentation", [[1, 1, 1e300, 5, 5, 9]]), "polygon 0: point (1e+300, 5) lies outside its picture"),
        (first("segmentation", RUNS | {"size": [64, 48]}), f"{ROW}.*object 0: its mask is of 48x64 pixels, its"),
        (first("segmentation", RUNS | {"size": 5}), "object 0: size of run lengths is height and width, found 5"),
        (first("segmentation", RUNS | {"counts": [9, 9]}), "object 0: run lengths sum to 18"),
        (first("segmentation", RUNS | {"counts": [-1, 3073]}), "object 0: run lengths hold -1"),
        (first("segmentation", [[10**400, 1, 5, 5, 5, 9]]), "object 0, polygon 0: x, y, x, y ... are expected"),
        (first("segmentation", [[0, 40, 3, 40, 3, 47, 0, 47]]), "object 0: its mask and its box (36, 8, 48, 20) as x0"),
        (first("segmentation", RUNS | {"counts": ["a"]}), "counts of run lengths are whole numbers or a text"),
        (picture("file_name", "no.png"), f"{FILE}: the picture 'no.png' (id 10) is missing"),
        (picture("file_name", "../train/10.png"), "the picture '../train/10.png' (id 10) is to lie below"),
        (picture("file_name", "11.png"), f"{FILE}: the pictures of ids 10 and 11 have one file, 11.png"),
        (picture("width", 640.0), f"{ROW}: its objects are those of a picture of 640x48, the picture has 64x48"),
        (picture("width", "640"), f"{ROW}: its objects are those of a picture of 640x48, the picture has 64x48"),
        (lambda held: held["images"][0].update(width=48, height=64), "(a picture whose EXIF orientation says"),
        (picture("width", 640), f"{ROW}: its objects are those of a picture of 640x48, the picture has 64x48"),
        (twice("images"), f"{FILE}: picture 4 has the id 10 of another one; ids must differ"),
        (twice("annotations"), "has the id 0 of another one; ids must differ"),
        (twice("categories"), f"{FILE}: category 2 has the id 7 of another one; ids must differ"),
        (lambda held: held["categories"][0].update(name=None), "the category of id 7 has the name None"),
    ],
)  # fmt: skip
def test_a_bad_row_is_one_line_that_names_it(said: Any, change: Change, line: str) -> None:
    found = said(change)
    rest = found
    for part in line.split(".*"):
        assert part in rest, found
        rest = rest.split(part, 1)[1]
