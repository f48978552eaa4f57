"""Pictures with boxes and masks that are read when they are drawn: batches as of pictures that are held."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from objects_on_disk import SIZE, coco, scenes, voc
from PIL import Image

from kdbench import scaffold
from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.base.yamlfile import read_as
from kdbench.checks.rows import how_read
from kdbench.contract import Batch, Kept
from kdbench.contract.maps import IGNORED
from kdbench.data import Place
from kdbench.data.decode.inputs import ImageInput, PictureInput
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.kept import StoredMasks
from kdbench.data.feed.loader import InOrder, Loader
from kdbench.data.feed.stored import Stored
from kdbench.scaffold import objects

MOVES = ("flip", "flipv", "turn90", "window48")


def parquet(folder: Path, parts: dict[str, int]) -> Path:
    folder.mkdir()
    for seed, (part, count) in enumerate(parts.items()):
        files, found = [], []
        for pixels, own in scenes(count, seed):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            files.append({"bytes": file.getvalue()})
            boxes = [[float(side) for side in box] for _, box in own]
            found.append({"bbox": boxes, "category": [label for label, _ in own]})
        pq.write_table(pa.table({"image": files, "objects": found}), folder / f"{part}.parquet")
    return folder


def described_as(kind: str, form: str, folder: Path, **given: Any) -> SetSpec:
    """A set of pictures brought to 64 x 64, held (``image``) or read when drawn (``picture``)."""
    image = {"kind": kind, "column": "image", "size": 64, "fit": "scale", "mean": [0.5], "std": [0.2], **given}
    if kind == "image":
        image["convert"] = True
    own: dict[str, Any] = {"column": "objects", "classes": ["bolt", "nut"]}
    if form == "masks":
        own["segments"] = "segmentation"
    if form == "parquet":
        own["boxes"] = "xyxy"
    return SetSpec.model_validate({
        "name": "mine", "title": "mine", "folders": ["mine"], "path": str(folder), "inputs": {"image": image},
        "objects": own, "licence": "none", "megabytes": 1,
    })  # fmt: skip


MAKERS: dict[str, Any] = {
    "boxes": coco, "voc": voc, "parquet": parquet, "masks": lambda *args: coco(*args, masks=True),
}  # fmt: skip


def rows(spec: SetSpec, cache: Path) -> Dataset:
    return described.load(spec, {}, Place(None, cache, Progress.silent()))


def same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.x["image"], other.x["image"])
    fields = one.y.tensors()
    for name, values in other.y.tensors().items():
        if name != "masks":
            assert torch.equal(values, fields[name]), name
    if "masks" in fields:
        assert torch.equal(one.y.shapes(), other.y.shapes())


@pytest.mark.parametrize("form", MAKERS)
def test_batches_are_those_of_held_pictures_in_any_order(form: str, tmp_path: Path) -> None:
    folder = MAKERS[form](tmp_path / "mine", {"train": 9, "test": 3})
    held, streamed = (rows(described_as(kind, form, folder), tmp_path / kind) for kind in ("image", "picture"))
    assert isinstance(streamed.train.x["image"], Stored)
    assert isinstance(streamed.train.y.masks, Kept) == (form == "masks")
    for one in (streamed.train.x["image"], *([streamed.train.y.masks] if form == "masks" else [])):
        assert isinstance(one.blob, np.memmap)  # neither is in memory as a whole
    loaders = [Loader(data, data.train, MOVES, 4, 0, "s", workers=0) for data in (held, streamed)]
    for number in (4, 0, 1, 2):  # as of a run that resumes somewhere
        same(*(loader.draw(number) for loader in loaders))
    for one, other in zip(*(InOrder(data, data.test, workers=0) for data in (held, streamed)), strict=True):
        same(one, other)
    few = [data.head(4) for data in (held, streamed)]
    same(*(Loader(data, data.train, (), 4, 0, "s", workers=0).draw(0) for data in few))
    assert few[1].digest("train") != streamed.head(5).digest("train")


def test_workers_read_masks_ahead_as_this_process_does(tmp_path: Path) -> None:
    folder = MAKERS["masks"](tmp_path / "mine", {"train": 6, "test": 2})
    streamed = rows(described_as("picture", "masks", folder), tmp_path)
    loaders = [Loader(streamed, streamed.train, MOVES, 2, 0, "s", workers=workers) for workers in (0, 1)]
    for number in range(3):
        same(*(loader.draw(number) for loader in loaders))
    same(*(next(iter(InOrder(streamed, streamed.test, workers=workers))) for workers in (0, 1)))


def test_a_picture_that_lies_on_its_side_is_turned_before_its_boxes_are_read(tmp_path: Path) -> None:
    folder = coco(tmp_path / "mine", {"train": 2, "test": 2})
    file = folder / "annotations" / "instances_train.json"
    found = json.loads(file.read_text())
    for one in found["images"]:
        path = folder / "train" / one["file_name"]
        with Image.open(path) as picture:
            lying, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
            exif[0x0112] = 6
            lying.save(path, exif=exif)
    held, streamed = (rows(described_as(kind, "boxes", folder), tmp_path / kind) for kind in ("image", "picture"))
    assert streamed.train.y.origin.tolist() == [[float(side) for side in SIZE]] * 2
    same(*(Loader(data, data.train, (), 2, 0, "s", workers=0).draw(0) for data in (held, streamed)))


def spoiled(folder: Path, how: Any) -> Path:
    path = folder / "train" / "11.png"
    how(path)
    return folder


@pytest.mark.parametrize(
    ("how", "line"),
    [
        (lambda path: path.unlink(), r"instances_train.json: the picture '11.png' \(id 11\) is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), r"instances_train.json picture 1 \(11.png\), column "
         "'image': the picture is cut off or damaged"),
        (lambda path: path.write_bytes(b""), r"instances_train.json picture 1 \(11.png\).*zero bytes"),
        (lambda path: path.write_text("none"), r"picture 1 \(11.png\), column 'image': 4 bytes that are no picture"),
    ],
)  # fmt: skip
def test_a_picture_that_cannot_be_read_is_refused_by_file_and_row(how: Any, line: str, tmp_path: Path) -> None:
    folder = spoiled(coco(tmp_path / "mine", {"train": 4, "test": 2}), how)
    with pytest.raises(UserError, match=line):
        rows(described_as("picture", "boxes", folder), tmp_path)


def test_masks_that_cannot_be_read_name_their_row() -> None:
    masks = StoredMasks(np.zeros(4, np.uint8), np.array([0, 4]), np.arange(1), (4, 4), "0", "mine train")
    with pytest.raises(UserError, match="mine train row 0: its masks cannot be read"):
        masks[torch.tensor([0])]


def test_a_picture_of_another_size_is_refused_where_one_is_expected(tmp_path: Path) -> None:
    folder = coco(tmp_path / "mine", {"train": 3, "test": 2})
    exact = described_as("picture", "boxes", folder, size=list(SIZE), fit="exact")
    assert rows(exact, tmp_path / "a").train.x["image"].shape == (3, 3, *SIZE)
    with pytest.raises(UserError, match=r"picture 0 \(10.png\).*64x48 pixels, 32x32 expected; `fit: scale` reads"):
        rows(described_as("picture", "boxes", folder, size=32, fit="exact"), tmp_path / "b")


def test_whole_pictures_and_cut_ones_are_told_apart() -> None:
    both = {"kind": "picture", "column": "image", "size": 64, "mean": [0.5], "std": [0.2]}
    with pytest.raises(ValueError, match="give one of resize, what the short side is brought to, and fit: scale"):
        PictureInput.model_validate(both)
    with pytest.raises(ValueError, match="give one of resize"):
        PictureInput.model_validate({**both, "fit": "scale", "resize": 72})
    assert "whole pictures brought to 64x64, read" in how_read(PictureInput.model_validate({**both, "fit": "scale"}))
    held = ImageInput.model_validate({**both, "kind": "image", "fit": "scale"})
    assert how_read(held) == "whole pictures brought to 64x64, RGB"
    with pytest.raises(ValueError, match="or of kind picture with fit: scale"):
        described_as("picture", "boxes", Path("mine"), fit="cut", resize=72)


def test_a_folder_of_more_than_memory_should_hold_is_read_when_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = coco(tmp_path / "mine", {"train": 4, "test": 2})
    monkeypatch.setattr(objects, "HELD", 6 * 64 * 64 * 3 - 1)
    notes = scaffold.new_task("mine", "coco", str(folder), here=tmp_path).notes
    assert any("pictures are read while training" in note for note in notes)
    spec = read_as(SetSpec, tmp_path / "sets" / "mine.yaml", name="mine")
    assert (spec.inputs["image"].kind, spec.inputs["image"].fit) == ("picture", "scale")
    assert isinstance(rows(spec, tmp_path).train.x["image"], Stored)


def test_pictures_keep_their_shape_where_they_are_padded(tmp_path: Path) -> None:
    """48 x 64 in 64 x 64: the lowest quarter is of the mean colour, boxes and masks as they came."""
    folder = coco(tmp_path / "mine", {"train": 6, "test": 3}, masks=True)
    held, streamed = (
        rows(described_as(kind, "masks", folder, fit="pad"), tmp_path / kind) for kind in ("image", "picture")
    )
    y = held.train.y
    assert y.tolist() == [[[float(label), *map(float, box)] for label, box in own] for _, own in scenes(6, 0)]
    assert y.sizes.tolist() == y.origin.tolist() == [[48.0, 64.0]] * 6
    assert (held.train.x["image"][:, :, 48:] == 128).all()
    assert not y.shapes()[:, 48:].any()
    for loaders in [[Loader(data, data.train, MOVES, 3, 0, "s", workers=0) for data in (held, streamed)]]:
        same(*(loader.draw(1) for loader in loaders))
    same(*(next(iter(InOrder(data, data.test, workers=0))) for data in (held, streamed)))
    assert held.identity() != rows(described_as("image", "masks", folder), tmp_path / "scaled").identity()
    assert streamed.identity() != rows(described_as("picture", "masks", folder), tmp_path / "squeezed").identity()


def test_a_padded_map_is_ignored_where_there_is_no_picture(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name, picture in (("images", Image.new("RGB", (30, 20), "red")), ("maps", Image.new("L", (30, 20), 1))):
            (tmp_path / "mine" / name / part).mkdir(parents=True)
            picture.save(tmp_path / "mine" / name / part / "a.png")
    image = {"kind": "picture", "column": "image", "size": 60, "fit": "pad", "mean": [0.5], "std": [0.2]}
    spec = SetSpec.model_validate({
        "name": "mine", "title": "mine", "folders": ["mine"], "path": str(tmp_path / "mine"), "licence": "none",
        "inputs": {"image": image}, "map": {"column": "map", "classes": ["a", "b"]}, "megabytes": 1,
    })  # fmt: skip
    found = rows(spec, tmp_path)
    assert (found.train.y.labels[0, :40] == 1).all()
    assert (found.train.y.labels[0, 40:] == IGNORED).all()
    assert found.train.x["image"][torch.tensor([0])][0, :, 39:41, 0].tolist() == [[255, 128], [0, 128], [0, 128]]


def test_folders_of_unequal_shapes_become_sets_that_keep_them(tmp_path: Path) -> None:
    folder = coco(tmp_path / "mine", {"train": 4, "test": 2})
    for number in (10, 11):
        path = folder / "train" / f"{number}.png"
        Image.open(path).resize((32, 64)).save(path)
    notes = scaffold.new_task("mine", "coco", str(folder), here=tmp_path).notes
    spec = read_as(SetSpec, tmp_path / "sets" / "mine.yaml", name="mine")
    assert spec.inputs["image"].fit == "pad"
    assert any("scaled to lie within" in note for note in notes)
