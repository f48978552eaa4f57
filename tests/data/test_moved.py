"""Boxes move with their pictures: whatever an augmentation does, a box still holds the pixels that it held."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.contract import Maps, NotApplicable, Objects, Rows, Views
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.data.feed.loader import Loader
from kdbench.data.feed.moved import flip, flipv, mirror, moves, transposed, turn90, window
from kdbench.data.feed.reduced import with_reduced
from kdbench.specs.reduced import Reduced


def pictures(n: int = 40, side: int = 24, wide: int = 24) -> tuple[torch.Tensor, Objects]:
    """Pictures with two or no filled rectangles of values that tell their class."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.zeros(n, 1, side, wide, dtype=torch.uint8)
    made = []
    for picture in range(n):
        found = []
        for label in range(2 if picture % 5 else 0):
            x, y = torch.randint(0, 8, (2,), generator=draws).tolist()
            w, h = torch.randint(3, 9, (2,), generator=draws).tolist()
            x, y = x + label * wide // 2 - label * 4, y + label * side // 2 - label * 4
            x1, y1 = min(x + w, wide), min(y + h, side)
            pixels[picture, 0, y:y1, x:x1] = label + 1
            found.append([label, x, y, x1, y1])
        made.append(found)
    return pixels, Objects.of(made, (side, wide))


def shown(pixels: torch.Tensor, objects: Objects) -> None:
    """Every box holds its class's value and nothing else, and no such pixel lies outside of it."""
    last = {(int(i), int(c)) for i, c in zip(objects.image, objects.labels, strict=True)}
    for image, label, box in zip(objects.image.tolist(), objects.labels.tolist(), objects.boxes.tolist(), strict=True):
        x0, y0, x1, y1 = (int(v) for v in box)
        inside = pixels[image, 0, y0:y1, x0:x1]
        if label == 1:  # drawn last, so that nothing covers it
            assert (inside == 2).all()
            assert int((pixels[image] == 2).sum()) == (x1 - x0) * (y1 - y0)
    assert len(last) == len(objects.labels)


@pytest.mark.parametrize("move", [flip, flipv, turn90])
def test_boxes_hold_what_they_held(move):
    pixels, objects = pictures()
    moved, found = move(pixels, objects, torch.Generator().manual_seed(1))
    shown(moved, found)
    assert found.counts.tolist() == objects.counts.tolist()
    assert not torch.equal(moved, pixels)
    assert 5 < (moved == pixels).flatten(1).all(1).sum() - 8 < 30  # eight pictures are empty


def test_a_mirror_twice_and_a_transposition_twice_are_nothing():
    pixels, objects = pictures(side=24, wide=30)
    every = torch.ones(len(pixels), dtype=torch.bool)
    for axis in (0, 1):
        once = mirror(pixels, objects, every, axis)
        twice = mirror(*once, every, axis)
        assert torch.equal(twice[0], pixels)
        assert torch.equal(twice[1].boxes, objects.boxes)
    square, objects = pictures()
    back = transposed(*transposed(square, objects, every), every)
    assert torch.equal(back[0], square)
    assert torch.equal(back[1].boxes, objects.boxes)


def test_turns_are_four_alike_and_refuse_oblong_pictures():
    pixels = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3).repeat(400, 1, 1, 1)
    moved, _ = turn90(pixels, Objects.of([[]] * 400, (3, 3)), torch.Generator().manual_seed(0))
    found = {tuple(picture.flatten().tolist()) for picture in moved}
    assert found == {tuple(torch.rot90(pixels[0, 0], k).flatten().tolist()) for k in range(4)}
    with pytest.raises(UserError, match="turn90 needs square pictures, these are 30x24"):
        turn90(*pictures(wide=30), torch.Generator())


def test_windows_cut_boxes_and_leave_out_what_is_hardly_seen():
    pixels, objects = pictures()
    moved, found = window(pixels, objects, torch.Generator().manual_seed(3), 12)
    assert moved.shape == (40, 1, 12, 12)
    assert (found.sizes == 12).all()
    shown(moved, replace(found, labels=torch.where(found.labels == 1, 1, 0)))
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert (sides >= 2).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= 12).all()
    assert (found.counts[objects.counts > 0] > 0).all()  # redrawn until one is seen
    assert (found.counts[objects.counts == 0] == 0).all()
    assert found.counts.sum() < objects.counts.sum()
    whole, same = window(pixels, objects, torch.Generator(), 99)
    assert torch.equal(whole, pixels)
    assert torch.equal(same.boxes, objects.boxes)


def test_unknown_augmentations_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'flipp' of pictures with their targets .did you mean 'flip'"):
        moves(["flipp"])
    with pytest.raises(UserError, match="'crop4' of pictures with their targets"):
        moves(["crop4"])
    assert len(moves(["flip", "flipv", "turn90", "window128"])) == 4


def dataset() -> Dataset:
    pixels, objects = pictures()
    rows = Rows({"image": pixels}, objects)
    return Dataset("x", rows, rows, 2, {"image": Transform((0.0,), (1.0,))})


def test_batches_depend_on_seed_stage_and_number_alone_and_views_share_boxes():
    data = dataset()
    loader = Loader(data, data.train, ["flip", "window12"], 8, 0, "s")
    one, again = loader.draw(3), Loader(data, data.train, ["flip", "window12"], 8, 0, "s").draw(3)
    assert torch.equal(one.x["image"], again.x["image"])
    assert torch.equal(one.y.boxes, again.y.boxes)
    shown((one.x["image"] * 255).round().byte(), one.y)
    views = Views(2, lambda pixels, rng: torch.stack([pixels, pixels * 0.5]))
    both = Loader(data, data.train, ["flip"], 8, 0, "s", views).draw(0)
    assert len(both.y) == 16
    assert both.view(1).y.tolist() == both.view(0).y.tolist()


def test_views_of_raw_pixels_and_several_inputs_are_refused():
    data = dataset()
    raw = Views(2, lambda pixels, rng: pixels.expand(2, *pixels.shape), "raw")
    with pytest.raises(NotApplicable, match="with which the targets would not move"):
        Loader(data, data.train, ["flip"], 8, 0, "s", raw)
    two = Rows({**data.train.x, "other": data.train.x["image"]}, data.train.y)
    with pytest.raises(UserError, match="one input for student and teachers; here are image, other"):
        Loader(replace(data, train=two), two, ["flip"], 8, 0, "s")


def test_a_reduced_input_shows_what_moved_and_windows_that_it_does_not_divide_are_refused():
    data = with_reduced(dataset(), {"small": Reduced.model_validate({"from": "image", "reduce": 4})})
    assert (data.reduced("small"), data.reduced("image")) == (4, 1)
    batch = Loader(data, data.train, ["flip", "turn90", "window16"], 8, 0, "s").draw(0)
    whole = (batch.x["image"] * 255).round().byte()
    shown(whole, batch.y)
    wanted = data.derived["small"].fn(whole, None)
    assert torch.equal((batch.x["small"] * 255).round().byte(), wanted)
    assert batch.x["small"].shape[2:] == (4, 4)
    with pytest.raises(UserError, match=r"inputs.small: training sees 18x18 pixels .* reduce: 4 does not divide"):
        Loader(data, data.train, ["window18"], 8, 0, "s")


@pytest.mark.parametrize("name", ["flip", "flipv", "turn90", "window16"])
def test_maps_move_as_their_pictures_do(name):
    pixels = torch.randint(0, 256, (30, 1, 24, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (move,) = moves([name])
    moved, maps = move(pixels, Maps(pixels[:, 0]), torch.Generator().manual_seed(1))
    assert torch.equal(moved[:, 0], maps.labels)
    assert not torch.equal(moved, pixels)
    every = torch.ones(30, dtype=torch.bool)
    for axis in (0, 1):
        assert torch.equal(
            mirror(*mirror(pixels, Maps(pixels[:, 0]), every, axis), every, axis)[1].labels, pixels[:, 0]
        )


def test_maps_are_joined_sliced_and_of_one_form():
    one = Maps(torch.arange(24, dtype=torch.uint8).view(2, 3, 4))
    both = one.join(one[torch.tensor([1])])
    assert len(both) == 3
    assert both[1:].tolist() == [one.tolist()[1]] * 2
    assert one.repeat(2).tolist() == one.tolist() * 2
    with pytest.raises(ValueError, match="maps are"):
        Maps(torch.zeros(2, 3))
