"""Augmentation has torchvision's distribution, and each picture its own draw."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.data.feed.augment import augmentation, crop, flip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 20, size: int = 6, channels: int = 1) -> Tensor:
    """Pictures whose every pixel tells its picture and place."""
    return (torch.arange(n * channels * size * size) % 251 + 1).to(torch.uint8).view(n, channels, size, size)


def offsets(cropped: Tensor, picture: Tensor, pad: int) -> list[tuple[int, int]]:
    """Which window of the padded picture each crop is."""
    padded = torch.nn.functional.pad(picture, (pad,) * 4)
    _, h, w = picture.shape
    windows = {padded[:, y : y + h, x : x + w].numpy().tobytes(): (y, x) for y in range(9) for x in range(9)}
    return [windows[c.numpy().tobytes()] for c in cropped]


def test_crop_draws_every_window_as_often_as_torchvision() -> None:
    from torchvision.transforms import RandomCrop

    picture = torch.arange(1, 65, dtype=torch.uint8).view(1, 8, 8)
    n = 8100
    ours = Counter(offsets(crop(picture.expand(n, 1, 8, 8), generator(), 4), picture, 4))
    theirs = Counter(offsets(torch.stack([RandomCrop(8, padding=4)(picture) for _ in range(n)]), picture, 4))
    every = {(y, x) for y in range(9) for x in range(9)}
    assert set(ours) == set(theirs) == every
    for counts in (ours, theirs):  # 80 degrees of freedom: the 99.9 % point is 125
        assert sum((counts[o] - 100) ** 2 / 100 for o in every) < 125


def test_flip_mirrors_half_and_each_picture_by_itself() -> None:
    pixels = numbered(4000, 4)
    flipped = flip(pixels, generator())
    mirrored = (flipped == pixels.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], pixels[~mirrored])
    assert 1850 < int(mirrored.sum()) < 2150  # 5 standard deviations of a fair coin


def test_flip_turns_all_frames_of_a_clip_alike() -> None:
    clips = numbered(50, 4).view(25, 1, 2, 4, 4)
    flipped = flip(clips, generator())
    for clip, turned in zip(clips, flipped, strict=True):
        assert torch.equal(turned, clip) or torch.equal(turned, clip.flip(-1))


@pytest.mark.parametrize("name", ["crop", "flip4", "crop0", "croop4", "resized_crop"])
def test_unknown_augmentations(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown augmentation '{name}'.*crop<pixels>"):
        augmentation([name])
