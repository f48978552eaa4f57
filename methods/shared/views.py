"""Several views of each row: rotations, and a weak and a strong augmentation.

A view function takes pixels (N, C, H, W) and a generator and returns (views, N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdbench.contract import Network, NotApplicable, TaskInfo, Views
from kdbench.data.feed.augment import flip

ROTATIONS = 4
STRONG_OPS, STRONG_MAGNITUDE = 2, 10
"""RandAugment's operations an image and their strength on its scale of 0 to 30."""


def rotations(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """(4, N, C, H, W): square images turned counter-clockwise by 0, 90, 180 and 270 degrees; nothing is drawn."""
    return torch.stack([pixels.rot90(quarter, (-2, -1)) for quarter in range(ROTATIONS)])


def mirrored_rotations(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """:func:`rotations` of images that are mirrored with probability one half, all four of an image alike."""
    return rotations(flip(pixels, rng), rng)


def rotated(task: TaskInfo, *nets: Network, raw: bool = False) -> Views:
    """Views by rotation of what the networks see: one input, or inputs that show one picture.

    Args:
        raw: rotate raw images, each of which is then augmented by itself but for one mirroring of all four; otherwise
            rotate an image after its augmentation.

    Raises:
        NotApplicable: the networks read different pictures, or one that is no square image.
    """
    names = pictures(task, nets)
    for name in names:
        if task.raw_shape[name][1] != task.raw_shape[name][2]:
            size = "x".join(map(str, task.raw_shape[name][1:]))
            raise NotApplicable(f"only square images can be turned by 90 degrees, those of {name!r} are {size}")
    if raw:
        return Views(ROTATIONS, mirrored_rotations, where="raw", replaces=("flip",), input=names[0])
    return Views(ROTATIONS, rotations, input=nets[0].input)


def pictures(task: TaskInfo, nets: Sequence[Network]) -> list[str]:
    """The raw image inputs behind what networks read, the first network's first; views of one reach all.

    Raises:
        NotApplicable: they show different pictures, or one is of no image.
    """
    names = list(dict.fromkeys(image_input(task, net) for net in nets))
    if other := [name for name in names if not task.alike(names[0], name)]:
        raise NotApplicable(f"its views are of one picture, the networks read {names[0]} and {other[0]}")
    return names


def weak_and_strong(task: TaskInfo, *nets: Network) -> Views:
    """Two views of the picture behind the networks' inputs: as it is, and after RandAugment (Cubuk et al. 2020).

    Raises:
        NotApplicable: the networks read different pictures, or images that are neither grey nor RGB.
    """
    names = pictures(task, nets)
    for name in names:
        if (channels := task.raw_shape[name][0]) not in (1, 3):
            raise NotApplicable(f"its strong view takes grey or RGB images, those of {name!r} have {channels} channels")
    return Views(2, _as_is_and_strong, where="raw", input=names[0], host=True)


def _as_is_and_strong(pixels: Tensor, rng: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import RandAugment  # takes seconds to import

    augment = RandAugment(STRONG_OPS, STRONG_MAGNITUDE)
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        return torch.stack([pixels, torch.stack([augment(image) for image in pixels])])


def image_input(task: TaskInfo, net: Network) -> str:
    """The raw image input that a network reads, or that its input is made from.

    Raises:
        NotApplicable: it reads no image, or it cannot be told which.
    """
    images = [name for name, shape in task.raw_shape.items() if len(shape) == 3]
    if net.input in images:
        return net.input
    if net.input in task.raw_shape or len(images) != 1:
        raise NotApplicable(f"its views are of images, the input {net.input!r} is none")
    return images[0]
