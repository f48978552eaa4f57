"""Augmentation has torchvision's distribution, and each picture its own draw."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.data.feed.augment import augmentation, crop, flip, grey, jitter


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


def pictures(n: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=generator(1), dtype=torch.uint8)


def test_jitter_is_torchvisions_brightness_contrast_and_saturation() -> None:
    from torchvision.transforms.v2 import functional as V

    pixels = pictures(40, 3, 8, 8)
    changed = jitter(pixels, generator(), 40)
    factors = 1 + 0.4 * (torch.rand(3, 40, generator=generator()) * 2 - 1)
    assert 0.6 < float(factors.min()) < 0.65
    assert 1.35 < float(factors.max()) < 1.4
    for picture, one, (bright, contrast, colour) in zip(pixels, changed, factors.T.tolist(), strict=True):
        known = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(picture, bright), contrast), colour)
        assert int((one.int() - known.int()).abs().max()) <= 4  # torchvision cuts off at each of the steps, not once
        assert abs(float((one.int() - known.int()).float().mean())) < 2


def test_jitter_keeps_grey_pictures_grey_and_frames_of_a_clip_alike() -> None:
    assert jitter(pictures(5, 1, 4, 4), generator(), 40).shape == (5, 1, 4, 4)
    still = pictures(6, 3, 1, 4, 4).expand(6, 3, 2, 4, 4)
    first, second = jitter(still, generator(), 80).unbind(2)
    assert torch.equal(first, second)


def test_grey_takes_colours_from_so_many() -> None:
    from torchvision.transforms.v2 import functional as V

    pixels = pictures(4000, 3, 2, 2)
    changed = grey(pixels, generator(), 20)
    without = (changed == changed[:, :1]).flatten(1).all(1)
    assert 670 < int(without.sum()) < 930  # 5 standard deviations
    assert torch.equal(changed[~without], pixels[~without])
    known = V.rgb_to_grayscale(pixels[without], 3)
    assert int((changed[without].int() - known.int()).abs().max()) <= 1


@pytest.mark.parametrize("name", ["crop", "flip4", "crop0", "croop4", "jitter", "grey0", "resized_crop"])
def test_unknown_augmentations(name: str) -> None:
    with pytest.raises(UserError, match=f"unknown augmentation '{name}'.*crop<pixels>"):
        augmentation([name])
