"""JDA's operations against Pillow, bit for bit; its chain and policies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from kdbench.contract import Network, NotApplicable, Rows
from kdbench.methods.shared import jda

GREY = (128, 128, 128)


def pil(name, image, m, s):
    w, h = image.size
    affine = {
        "shearX": (1, s * m, 0, 0, 1, 0),
        "shearY": (1, 0, 0, s * m, 1, 0),
        "translateX": (1, 0, s * m * w, 0, 1, 0),
        "translateY": (1, 0, 0, 0, 1, s * m * h),
    }
    if name in affine:
        resample = Image.Resampling.BICUBIC if name.startswith("shear") else Image.Resampling.NEAREST
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], resample, fillcolor=GREY)
    if name == "rotate":
        turned = image.convert("RGBA").rotate(m)
        return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert("RGB")
    enhance = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in enhance:
        return enhance[name](image).enhance(1 + s * m)
    simple = {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize, "invert": ImageOps.invert}
    if name in simple:
        return simple[name](image)
    return ImageOps.posterize(image, int(m)) if name == "posterize" else ImageOps.solarize(image, m)


def pictures(h, w, n=6):
    """Noise, smooth shades, a narrow range, few values, one value, and a smoothed picture."""
    rng = np.random.default_rng(h * 100 + w)
    noise = rng.integers(0, 256, (h, w, 3))
    ramp = np.add.outer(np.arange(h), np.arange(w))[..., None] * np.array([3, 2, 5]) % 256
    narrow = rng.integers(90, 140, (h, w, 3))
    few = rng.choice([0, 17, 255], (h, w, 3))
    flat = np.full((h, w, 3), 77)
    blurred = np.asarray(Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.BoxBlur(2)))
    return np.stack([noise, ramp, narrow, few, flat, blurred]).astype(np.uint8)[:n]


def tensor(images):
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", jda.OPERATIONS)
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (30, 41), (2, 5)], ids=str)
def test_operation_is_pillows(name, size):
    images = pictures(*size)
    for place in range(jda.GRID):
        m = jda.magnitude(name, place)
        for s in (1, -1):
            ours = jda.OPERATIONS[name](tensor(images), m, torch.full((len(images),), s))
            theirs = tensor([np.asarray(pil(name, Image.fromarray(image), m, s)) for image in images])
            assert torch.equal(ours, theirs), f"magnitude {m}, sign {s}"


@pytest.mark.parametrize("name", jda.OPERATIONS)
def test_grey_images_are_as_if_repeated_to_rgb(name):
    grey = tensor(pictures(9, 12))[:, :1]
    sign = torch.tensor([1, -1, 1, -1, 1, -1])
    m = jda.magnitude(name, 7)
    ours = jda.OPERATIONS[name](grey, m, sign)
    assert torch.equal(ours.expand(-1, 3, -1, -1), jda.OPERATIONS[name](grey.repeat(1, 3, 1, 1), m, sign))


@pytest.mark.parametrize("case", [1, 2, 3])
def test_policies_are_those_of_the_golden_cases(case):
    scalars = json.loads((Path(__file__).parents[1] / f"parity/ccd/case{case}.json").read_text())["scalars"]
    chain = jda.chain(scalars["jda_policy"])
    assert chain.p == scalars["jda_p"]
    assert [name for name, _ in chain.ops] == scalars["jda_ops"]
    assert [m for _, m in chain.ops] == scalars["jda_magnitudes"]


def test_first_view_is_untouched_and_draws_come_from_the_generator():
    images, chain = tensor(pictures(8, 8)), jda.chain("cifar10")
    first, again, other = (chain(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first[0], images)
    assert torch.equal(first, again)
    assert not torch.equal(first[1], other[1])


def test_each_image_has_draws_of_its_own():
    images = tensor(pictures(8, 8, 1)).repeat(40, 1, 1, 1)
    views = jda.chain("cifar100")(images, torch.Generator().manual_seed(0))[1]
    assert len(views.flatten(1).unique(dim=0)) > 25


@pytest.mark.parametrize(("p", "changed"), [(0.0, False), (1.0, True)])
def test_probability_is_that_of_every_operation(p, changed):
    images = tensor(pictures(8, 8, 1))
    view = jda.chain("cifar100", p)(images, torch.Generator().manual_seed(0))[1]
    assert torch.equal(view, images) is not changed


def task(**inputs):
    return SimpleNamespace(
        raw_shape={name: tuple(x.shape[1:]) for name, x in inputs.items()}, device=torch.device("cpu"),
        alike=lambda one, other: one == other,
        rows=lambda index: Rows({name: x[index] for name, x in inputs.items()}, index),
    )  # fmt: skip


def net(reads):
    network = Network()
    network.input = reads
    return network


def test_views_are_of_raw_pixels_before_crop_and_flip():
    views = jda.jda(task(image=torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), (net("image"), net("image")), "cifar100")
    assert (views.n, views.where, views.replaces, views.input) == (2, "raw", (), "image")


@pytest.mark.parametrize(
    ("inputs", "reads", "reason"),
    [
        ({"image": torch.zeros(2, 2, 8, 8, dtype=torch.uint8)}, ("image", "image"), "grey or RGB"),
        ({"image": torch.zeros(2, 3, 8, 8)}, ("image", "image"), "8-bit"),
        ({"audio": torch.zeros(2, 12)}, ("audio", "audio"), "is none"),
        ({"a": torch.zeros(2, 1, 8, 8), "b": torch.zeros(2, 1, 8, 8)}, ("a", "b"), "a and b"),
    ],
)
def test_what_is_no_common_picture_is_refused(inputs, reads, reason):
    with pytest.raises(NotApplicable, match=reason):
        jda.jda(task(**inputs), tuple(map(net, reads)), "cifar100")
