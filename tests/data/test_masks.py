"""Masks of objects: COCO's are read as pycocotools reads them, moves move them, and what cannot be is refused."""

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
from pycocotools import mask as reference

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.contract import Objects
from kdbench.data.decode.masks import decoded, layered, numbered
from kdbench.data.decode.place import Place
from kdbench.data.decode.specification import SetSpec
from kdbench.data.feed import described, moved
from kdbench.data.feed.dataset import Dataset

SIZE = (20, 40)
POLYGONS = [[2.0, 3.0, 30.5, 4.0, 18.0, 17.2], [32.0, 1.0, 38.0, 1.0, 38.0, 9.0, 32.0, 9.0]]


def some(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(SIZE) < rng.choice([0.02, 0.5, 0.98])


def test_polygons_and_both_run_lengths_are_those_of_pycocotools() -> None:
    wanted = reference.decode(reference.merge(reference.frPyObjects(POLYGONS, *SIZE))).astype(bool)
    assert np.array_equal(decoded(POLYGONS, SIZE, "here"), wanted)
    for seed in range(6):
        mask = some(seed)
        short = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        flat = mask.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        long = {"size": list(SIZE), "counts": [0, *runs] if flat[0] else runs}
        for given in (short, {**short, "counts": short["counts"].decode()}, long):
            assert np.array_equal(decoded(given, SIZE, "here"), mask)
    everything = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
    assert decoded(everything, SIZE, "here").all()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([[1, 1, 5, 5]], "polygon 0: 4 numbers are no polygon, 3 points or more"),
        ([[1, 1, 5, 5, 9, 2, 4]], "polygon 0: 7 numbers are no polygon"),
        ([[1, 1, 5, 5, float("nan"), 2]], "polygon 0: it holds a number that is not finite"),
        ([[1, 1, 50, 5, 9, 2]], "polygon 0: point .50, 5. lies outside its picture of 40x20"),
        ([], "a mask of polygons or run lengths is expected, found \\[\\]"),
        ("text", "a mask of polygons or run lengths is expected, found 'text'"),
        ([[1, "x", 2]], "polygon 0: x, y, x, y ... are expected"),
        ({"counts": [1]}, "run lengths have size and counts, found counts"),
        ({"size": [40, 20], "counts": [800]}, "its mask is of 20x40 pixels, its picture of 40x20"),
        ({"size": [20, 40], "counts": [5, 7]}, "run lengths sum to 12, a picture of 40x20 has 800 pixels"),
        ({"size": [20, 40], "counts": [900, -100]}, "run lengths hold -"),
        ({"size": [20, 40], "counts": "P"}, "run lengths cannot be read"),
        ({"size": [20, 40], "counts": "5\x07"}, "run lengths cannot be read"),
    ],
)
def test_masks_that_cannot_be_are_refused(value: Any, line: str) -> None:
    with pytest.raises(UserError, match=f"rows, object 3.*{line}"):
        decoded(value, SIZE, "rows, object 3")


def test_objects_that_overlap_lie_in_layers_and_none_is_lost() -> None:
    masks = [some(1), some(2), np.eye(*SIZE, dtype=bool)]
    layers = layered(masks, SIZE)
    for number, mask in enumerate(masks, 1):
        assert np.array_equal((layers == number).any(0), mask)
    assert layered([], SIZE).shape == (1, *SIZE)
    half = layered([np.kron(np.eye(4, dtype=bool), np.ones((2, 2), bool))], (4, 4))
    assert np.array_equal(half[0] == 1, np.eye(4, dtype=bool))


def targets() -> Objects:
    """Two pictures of square 12 pixels, with two overlapping objects and one."""
    masks = np.zeros((3, 12, 12), bool)
    masks[0, 1:5, 2:9] = masks[1, 3:8, 5:7] = masks[2, 0:3, 9:12] = True
    layers = [layered(masks[:2], (12, 12)), layered(masks[2:], (12, 12))]
    held = Objects.of([[[0, 2, 1, 9, 5], [1, 5, 3, 7, 8]], [[1, 9, 0, 12, 3]]], (12, 12))
    planes = np.zeros((2, 2, 12, 12), np.int16)
    for place, one in enumerate(layers):
        planes[place, : len(one)] = one
    return Objects(held.boxes, held.labels, held.counts, held.sizes, masks=torch.from_numpy(planes))


def boxes_of(shapes: torch.Tensor) -> list[list[float]]:
    found = []
    for shape in shapes:
        rows, columns = (torch.nonzero(shape.any(axis)).flatten() for axis in (1, 0))
        found.append([float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1])
    return found


@pytest.mark.parametrize("move", [moved.flip, moved.flipv, moved.turn90])
def test_a_moved_masks_box_is_the_moved_box_and_pixels_go_with_it(move: Any) -> None:
    y = targets()
    pixels = y.masks[:, :1].to(torch.uint8)  # type: ignore[index]
    assert boxes_of(y.shapes()) == y.boxes.tolist()
    turned = set()
    for seed in range(8):
        other, after = move(pixels, y, torch.Generator().manual_seed(seed))
        assert torch.equal(other, after.masks[:, :1].to(torch.uint8))
        assert boxes_of(after.shapes()) == after.boxes.tolist()
        turned.add(tuple(after.boxes[0].tolist()))
    assert len(turned) > 1


def test_flipped_twice_is_as_before() -> None:
    y, every = targets(), torch.ones(2, dtype=torch.bool)
    for axis in (0, 1):
        back = y.mirrored(every, axis, 12).mirrored(every, axis, 12)
        assert torch.equal(back.masks, y.masks)
        assert torch.equal(back.boxes, y.boxes)


def test_a_window_cuts_masks_and_leaves_objects_out_with_theirs() -> None:
    y = targets()
    found = y.window(torch.tensor([[0, 0], [0, 4]]), (8, 8))
    assert found.counts.tolist() == [2, 1]
    assert boxes_of(found.shapes()) == found.boxes.tolist() == [[2, 1, 8, 5], [5, 3, 7, 8], [5, 0, 8, 3]]
    lower = y.window(torch.tensor([[4, 4], [4, 0]]), (8, 8))
    assert lower.counts.tolist() == [1, 0]  # of the first object a quarter is seen
    assert boxes_of(lower.shapes()) == lower.boxes.tolist() == [[1, 0, 3, 4]]
    assert int(lower.masks.max()) == 1  # type: ignore[union-attr]


def test_picked_kept_joined_and_repeated_masks_stay_with_their_objects() -> None:
    y = targets()
    shapes = y.shapes()
    assert torch.equal(y[torch.tensor([1, 0])].shapes(), shapes[[2, 0, 1]])
    kept = y.keep(torch.tensor([False, True, True]))
    assert torch.equal(kept.shapes(), shapes[1:])
    both = y[:1].join(y[1:])
    assert torch.equal(both.shapes(), shapes)
    assert torch.equal(y.repeat(2).shapes(), torch.cat([shapes, shapes]))
    flat = Objects(y.boxes[2:], y.labels[2:], y.counts[1:], y.sizes[1:], masks=y.masks[1:, :1])  # type: ignore[index]
    assert torch.equal(y[:1].join(flat).shapes(), shapes)
    with pytest.raises(ValueError, match="cannot be joined"):
        y.join(Objects.of([[]], (12, 12)))
    listed = y.listed(masks=True)
    assert [one["masks"].shape for one in listed] == [(2, 12, 12), (1, 12, 12)]


def written(folder: Path, rows: list[Any], maps: list[np.ndarray] | None = None) -> Path:
    picture = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 10, 10)).save(picture, "PNG")
    (folder / "few").mkdir(exist_ok=True, parents=True)
    for part in ("train", "test"):
        held: dict[str, list[Any]] = {"image": [{"bytes": picture.getvalue()}] * len(rows), "objects": rows}
        if maps is not None:
            files = []
            for one in maps:
                file = io.BytesIO()
                Image.fromarray(one.astype(np.uint16)).save(file, "PNG")
                files.append({"bytes": file.getvalue()})
            held["numbers"] = files
        pq.write_table(pa.table(held), folder / "few" / f"{part}.parquet")
    return folder


def loaded(folder: Path, **objects: Any) -> Dataset:
    body: dict[str, Any] = {
        "name": "few", "title": "Few", "folders": ["few"], "licence": "none", "megabytes": 1,
        "inputs": {"image": {"kind": "image", "column": "image", "size": [10, 20], "fit": "scale", "mean": [0.5],
                             "std": [0.5]}},
        "objects": {"column": "objects", "classes": ["one", "two"], **objects},
    }  # fmt: skip
    return described.load(SetSpec.model_validate(body), {}, Place(folder, folder / "cache", Progress.silent()))


def test_rows_with_polygons_and_rows_with_maps_are_packed_in_the_size_of_the_pictures(tmp_path: Path) -> None:
    square = [[4.0, 4.0, 12.0, 4.0, 12.0, 12.0, 4.0, 12.0]]
    rows = [[{"bbox": [4.0, 4.0, 8.0, 8.0], "category": 1, "segmentation": square}], []]
    y = loaded(written(tmp_path / "a", rows), segments="segmentation").train.y
    assert y.masks.shape == (2, 1, 10, 20)
    assert boxes_of(y.shapes()) == y.boxes.tolist() == [[2, 2, 6, 6]]
    number = np.zeros((20, 40), int)
    number[4:12, 4:12] = 1
    plain = [[{"bbox": [4.0, 4.0, 8.0, 8.0], "category": 1}], []]
    maps = written(tmp_path / "b", plain, [number, number * 0])
    assert torch.equal(loaded(maps, instances="numbers").train.y.masks, y.masks)
    with pytest.raises(UserError, match=r"row 1.*'numbers': its map numbers 1 objects, the row has 0"):
        loaded(written(tmp_path / "c", plain, [number, number]), instances="numbers")
    with pytest.raises(UserError, match="its map is of 30x20 pixels, its picture of 40x20"):
        loaded(written(tmp_path / "d", plain, [number[:, :30], number]), instances="numbers")
    with pytest.raises(UserError, match=r"row 0.*object 0: without 'segmentation'"):
        loaded(written(tmp_path / "e", plain), segments="segmentation")
    rows[0][0]["segmentation"] = [[1.0, 1.0, 2.0, 2.0]]
    with pytest.raises(UserError, match=r"row 0.*object 0, polygon 0: 4 numbers are no polygon"):
        loaded(written(tmp_path / "f", rows), segments="segmentation")


def test_a_map_without_numbers_has_empty_masks() -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((20, 40), np.uint16)).save(file, "PNG")
    (mask,) = numbered({"bytes": file.getvalue()}, 1, (20, 40), "here")
    assert not mask.any()
