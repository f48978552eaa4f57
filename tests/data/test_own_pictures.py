"""Pictures of one's own: sizes that are no squares, grey and RGB, validation rows, texts as labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from kdbench.base.errors import UserError
from kdbench.checks import rows as checked
from kdbench.data import Place, status
from kdbench.data.decode import specification
from kdbench.data.decode.decoded import decode
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.stored import Geometry, random_box

KEPT = {"kind": "image", "column": "img", "size": [4, 6], "channels": 1, "mean": [0.5], "std": [0.5]}
SHOWN = {
    "kind": "picture", "column": "img", "size": [4, 6], "resize": 4, "channels": 1, "mean": [0.5], "std": [0.5],
}  # fmt: skip


def spec(inputs: dict[str, Any], **more: Any) -> SetSpec:
    body = {
        "name": "toy", "title": "toy", "folders": ["toy"], "inputs": inputs, "licence": "none", "megabytes": 1,
        "label": {"column": "label", "classes": 2},
    }  # fmt: skip
    return SetSpec.model_validate(body | more)


def fill(folder: Path, size: tuple[int, int], mode: str = "L", first: int = 0) -> None:
    """Two pictures of each of two classes, brighter by their number, left half black."""
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.zeros((*size, 3), np.uint8)
            pixels[:, size[1] // 2 :] = 40 + 100 * label + 10 * number + first
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number}.png")


@pytest.fixture
def toy(place: Place) -> Path:
    assert place.folder is not None
    for first, part in enumerate(("train", "val", "test")):
        fill(place.folder / "toy" / part, (4, 6), first=first)
    return place.folder / "toy"


PARTS = {part: [part] for part in ("train", "test", "val")}


@pytest.mark.parametrize("given", [KEPT, SHOWN])
def test_pictures_that_are_no_squares_are_kept_whole(given: dict[str, Any], toy: Path, place: Place) -> None:
    rows = described.load(spec({"image": given}), {}, place)
    assert rows.shape("image") == (1, 4, 6)
    pixels = rows.train.x["image"][torch.arange(4)]
    assert pixels[:, 0, 0].tolist() == [[0, 0, 0, v, v, v] for v in (40, 50, 140, 150)]


def test_teacher_and_student_read_one_folder_at_two_sizes(toy: Path, place: Place) -> None:
    large = {**SHOWN, "size": [8, 12], "resize": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    rows = described.load(spec({"image": SHOWN, "large": large}), {}, place)
    assert (rows.shape("image"), rows.shape("large")) == ((1, 4, 6), (3, 8, 12))
    one = torch.tensor([1])
    crops = [rows.train.x[name].read(one, np.random.default_rng(0), 0.3, rows.train.x["image"]) for name in rows.shows]
    assert (crops[0] > 0).any()
    small = torch.nn.functional.interpolate(crops[1].float(), size=(4, 6), mode="area")[:, :1]
    assert (small - crops[0].float()).abs().mean() < 5  # the same crop of the same picture


def test_geometry_of_a_square_is_as_it_was_and_others_are_covered() -> None:
    assert Geometry(64, 72).centre(90, 60) == (
        (108 - 64) // 2 * 90 / 108, 4 * 60 / 72, ((108 - 64) // 2 + 64) * 90 / 108, 68 * 60 / 72,
    )  # fmt: skip
    assert Geometry((64, 96), 64).centre(90, 60) == (0.0, 0.0, 90.0, 60.0)
    left, top, right, bottom = Geometry((10, 20), 10).centre(100, 100)
    assert ((left, right), (top, bottom)) == ((0.0, 100.0), (25.0, 75.0))
    boxes = [random_box(300, 100, 0.1, np.random.default_rng(seed), aspect=3.0) for seed in range(50)]
    assert all(2.1 < (right - left) / (bottom - top) < 4.3 for left, top, right, bottom in boxes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 0}, r"a number of pixels, or \[height, width\], each at least 1"),
        ({"size": [4, -6]}, r"a number of pixels, or \[height, width\], each at least 1"),
        ({"size": [4, 6, 8]}, r"a number of pixels, or \[height, width\], each at least 1"),
        ({"size": 4.5}, r"a number of pixels, or \[height, width\], each at least 1"),
        ({"channels": 3, "mean": [0.5, 0.5]}, "mean and std have 2 and 1 numbers for 3 channels"),
    ],
)
def test_sizes_and_normalisations_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    for given in (KEPT, SHOWN):
        with pytest.raises(ValidationError, match=said):
            spec({"image": given | change})


def test_equal_sides_are_one_number() -> None:
    """What is hashed of a size does not depend on how it was written."""
    assert spec({"image": {**KEPT, "size": [4, 4]}}) == spec({"image": {**KEPT, "size": 4}})


def test_validation_rows_are_scored_only_where_that_is_asked_for(toy: Path, place: Place) -> None:
    of = spec({"image": KEPT}, parts=PARTS)
    rows, asked = described.load(of, {}, place), described.load(of, {"score": "val"}, place)
    assert [int(part.x["image"][0].max()) for part in (rows.train, rows.test, asked.test)] == [40, 42, 41]
    assert asked.name == f"{rows.name}-val"
    assert not asked.official
    assert asked.digest("test") != rows.digest("test")
    with pytest.raises(UserError, match="toy has no validation part; name one in its file"):
        described.load(spec({"image": KEPT}), {"score": "val"}, place)
    with pytest.raises(ValidationError, match="val is a part of its own"):
        spec({"image": KEPT}, parts={**PARTS, "val": ["train"]})


def test_validation_rows_that_stand_in_another_part_are_found(toy: Path, place: Place) -> None:
    (toy / "val" / "ant" / "0.png").write_bytes((toy / "train" / "ant" / "0.png").read_bytes())
    of = spec({"image": KEPT}, parts=PARTS)
    found = checked.apart(described.load(of, {}, place), decode(of, None, place))
    assert found.outcome == "failed"
    assert "1 of 4 validation rows stand in another part too, e.g. val/ant/0.png" in found.message


def test_a_class_that_validation_rows_lack_is_refused(toy: Path, place: Place) -> None:
    for path in (toy / "val" / "bee").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"val: no file that is read in the class folder bee"):
        described.load(spec({"image": KEPT}, parts=PARTS), {}, place)
    (toy / "val" / "bee").rmdir()
    with pytest.raises(UserError, match=r"val: 1 class folders, toy has 2 classes"):
        described.load(spec({"image": KEPT}, parts=PARTS), {}, place)


def test_own_data_are_yours(toy: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    rows = described.load(spec({"image": KEPT}), {}, place)
    assert rows.name.startswith("toy-yours-")
    assert not rows.official
    assert f"toy: your own data, recorded as {rows.name}; not ranked" in capsys.readouterr().err
    assert status._state(spec({"image": KEPT}), None, place.folder, place.cache) == (
        "here", "yours, in toy/ of the data folder",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "L"])
def test_pictures_of_every_mode_are_brought_to_the_channels_asked_for(mode: str, place: Place) -> None:
    assert place.folder is not None
    for part in ("train", "test"):
        fill(place.folder / "toy" / part, (4, 6), "RGB")
        for path in (place.folder / "toy" / part).rglob("*.png"):
            picture = Image.open(path).convert(mode)
            path.unlink()
            picture.save(path.with_suffix(".tiff" if mode == "CMYK" else ".png"))
    rows = described.load(spec({"image": SHOWN}), {}, place)
    assert rows.train.x["image"][torch.tensor([0])][0, 0, 0].tolist() == pytest.approx(
        [0, 0, 0, 40, 40, 40], abs=12
    )  # of a palette


def picture_file(value: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_texts_as_labels_have_the_numbers_of_their_names(place: Place) -> None:
    assert place.folder is not None
    (place.folder / "toy").mkdir(parents=True)
    for part, words in (("train", ["cow", "ant"]), ("test", ["ant", "cow"])):
        table = pa.table({"img": [picture_file(len(part) + n) for n in range(2)], "label": words})
        pq.write_table(table, place.folder / "toy" / f"{part}.parquet")
    named = {"column": "label", "classes": 2, "names": ["ant", "cow"]}
    rows = described.load(spec({"image": KEPT}, label=named), {}, place)
    assert (rows.train.y.tolist(), rows.test.y.tolist()) == ([1, 0], [0, 1])
    with pytest.raises(UserError, match=r"label'?: 'ant' is no class of toy \(did you mean 'ants'\?\)"):
        described.load(spec({"image": KEPT}, label=named | {"names": ["ants", "cow"]}), {}, place)
    with pytest.raises(ValidationError, match="names are 1 different ones for 2 classes"):
        spec({"image": KEPT}, label=named | {"names": ["ant", "ant"]})


def test_a_name_that_two_data_sets_have_is_one_line_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdbench import data

    (tmp_path / "mnist.yaml").write_text("title: mine\n")
    monkeypatch.setattr(specification.plugins, "folders", lambda group: (tmp_path,))
    assert "cifar10" in specification.set_names()
    assert "mnist" not in specification.set_names()
    assert data.unknown("mnist") == (
        f"data.source: two data sets are called 'mnist', {specification.SETS / 'mnist.yaml'} and "
        f"{tmp_path / 'mnist.yaml'}; rename one of the files"
    )
