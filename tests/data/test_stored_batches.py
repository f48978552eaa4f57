"""Batches of stored pictures and clips: geometry, random boxes, worker processes, and one that is damaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from stored_rows import smooth, stored
from toy_rows import equal, toy

from kdbench.base.errors import UserError
from kdbench.contract import Rows
from kdbench.data.feed.dataset import Dataset, Derived, Transform
from kdbench.data.feed.described import one_frame
from kdbench.data.feed.loader import InOrder, Loader
from kdbench.data.feed.stored import Stored


@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 90), (32, 32), (20, 30)])
def test_test_geometry_is_torchvisions(width: int, height: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize
    from torchvision.transforms.functional import pil_to_tensor

    picture = smooth(width, height)
    ours = stored([[picture]], None)[torch.tensor([0])][0].float()
    theirs = pil_to_tensor(Compose([Resize(32), CenterCrop(24)])(picture)).float()
    assert (ours - theirs).abs().mean() < 2.0


def test_random_boxes_have_torchvisions_distribution() -> None:
    from torchvision.transforms import RandomResizedCrop

    from kdbench.data.feed.stored import random_box

    width, height, n = 60, 40, 3000
    rng = np.random.default_rng(0)
    ours = np.array([random_box(width, height, 0.08, rng) for _ in range(n)], float)
    ours = np.stack([ours[:, 0], ours[:, 1], ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]], 1)
    blank = torch.zeros(3, height, width)
    drawn = [RandomResizedCrop.get_params(blank, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)]
    theirs = np.array([[left, top, w, h] for top, left, h, w in drawn], float)
    for ours_of, theirs_of in zip(ours.T, theirs.T, strict=True):
        error = np.hypot(ours_of.std(), theirs_of.std()) / np.sqrt(n)
        assert abs(ours_of.mean() - theirs_of.mean()) < 4 * error
        assert 0.92 < ours_of.std() / theirs_of.std() < 1.08
        for share in (0.1, 0.5, 0.9):
            assert abs(np.quantile(ours_of, share) - np.quantile(theirs_of, share)) <= 2
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()


def clips() -> Dataset:
    videos = [[smooth(40, 30, 10 * v + f) for f in range(count)] for v, count in enumerate([6, 4, 2, 9, 5, 7])]
    column = stored(videos, 4, size=8, resize=10)
    rows = Rows({"clip": column}, torch.arange(6) % 3)  # type: ignore[dict-item]
    shades = {"clip": Transform((0.5,) * 3, (0.25,) * 3), "frame": Transform((0.5,) * 3, (0.25,) * 3)}
    return Dataset("toy", rows, rows, 3, shades, {"frame": Derived("clip", one_frame)})


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_stream_alike_with_any_number_of_workers(workers: int) -> None:
    data = clips()
    assert data.shape("clip") == (3, 4, 8, 8)
    assert data.shape("frame") == (3, 8, 8)
    loader = Loader(data, data.train, ["resized_crop25", "flip"], 4, 0, "s", workers=workers)
    again = Loader(data, data.train, ["resized_crop25", "flip"], 4, 0, "s", workers=0)
    for number in (0, 1, 2):
        batch = loader.draw(number)
        assert equal(batch, again.draw(number))
        shown = (batch.x["frame"][:, :, None] == batch.x["clip"]).flatten(3).all(3).all(1)
        assert shown.any(1).all()  # the frame is one of the same, augmented clip
    assert not equal(loader.draw(0), loader.draw(2))


def test_test_clips_are_the_middle_frames_of_the_centre() -> None:
    data = clips()
    batches = list(InOrder(data, data.test, workers=0))
    x = torch.cat([batch.x["clip"] for batch in batches])
    assert torch.equal(x, torch.cat([batch.x["clip"] for batch in InOrder(data, data.test, workers=2)]))
    pixels = data.test.x["clip"][torch.arange(6)]
    assert torch.equal(x, data.finish({"clip": pixels})[0]["clip"])
    assert torch.equal(pixels[2, :, 0], pixels[2, :, 2])  # two frames, looped to four


def test_a_damaged_picture_is_named_from_a_worker_too() -> None:
    data = clips()
    column = data.train.x["clip"]
    assert isinstance(column, Stored)
    blob = column.blob.copy()
    blob[column.bounds[column.first[3]] : column.bounds[column.first[4]]] = 0
    rows = Rows({"clip": replace(column, blob=blob)}, data.train.y)  # type: ignore[dict-item]
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^toy train row 3: a picture cannot be decoded"):
            Loader(data, rows, [], 6, 0, "s", workers=workers).draw(0)


def test_resized_crop_is_for_pictures_on_disk() -> None:
    data = toy()
    with pytest.raises(UserError, match="resized_crop needs pictures that are read from disk"):
        Loader(data, data.train, ["resized_crop8"], 8, 0, "s")
