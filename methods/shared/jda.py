"""Joint data augmentation (Li, Shao et al., ACCV 2022): each image again, after a chain of random operations.

Every operation takes uint8 pixels (N, C, H, W), grey or RGB, and gives Pillow's result to the last bit, for a whole
batch on its device. Hence the arithmetic: luma in integers, blending in float32, interpolation in float64, rotation in
16.16 fixed point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdbench.contract import Network, NotApplicable, TaskInfo, Views
from kdbench.methods.shared.views import pictures

FILL = 128
"""Grey of pixels that come from outside the image."""
GRID = 10
RANGES: dict[str, tuple[float, float]] = {
    "shearX": (0.0, 0.3),
    "shearY": (0.0, 0.3),
    "translateX": (0.0, 150 / 331),
    "translateY": (0.0, 150 / 331),
    "rotate": (0.0, 30.0),
    "color": (0.0, 0.9),
    "contrast": (0.0, 0.9),
    "brightness": (0.0, 0.9),
    "sharpness": (0.0, 0.9),
    "posterize": (8.0, 4.0),
    "solarize": (256.0, 0.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
    "invert": (0.0, 0.0),
}
"""Ends of each operation's grid of ten magnitudes."""


def luma(x: Tensor) -> Tensor:
    """(N, 1, H, W) int32 brightness by ITU-R 601-2 in 16-bit integers."""
    y = x.int()
    return y if x.shape[1] == 1 else (19595 * y[:, :1] + 38470 * y[:, 1:2] + 7471 * y[:, 2:3] + 0x8000) >> 16


def blend(plain: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """From ``plain`` (factor 0) over ``x`` (factor 1) beyond it; factor (N,) float64."""
    start = plain.float()
    mixed = start + factor.float()[:, None, None, None] * (x.float() - start)
    return mixed.clamp(0, 255).to(torch.uint8)


def color(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Saturation by 1 + sign m."""
    return blend(luma(x).expand_as(x), x, 1 + sign.double() * m)


def contrast(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Contrast by 1 + sign m, about the mean brightness."""
    total = luma(x).sum(dim=(1, 2, 3), keepdim=True).double()
    mean = (total / (x.shape[2] * x.shape[3]) + 0.5).floor()
    return blend(mean, x, 1 + sign.double() * m)


def brightness(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Brightness by 1 + sign m."""
    return blend(torch.zeros_like(x), x, 1 + sign.double() * m)


def sharpness(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Sharpness by 1 + sign m, against a 3x3 smoothing that leaves the border as it is."""
    smooth, y = x.clone(), x.int()
    h, w = x.shape[2:]
    if min(h, w) >= 3:
        windows = (y[..., i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
        total = sum(windows, 4 * y[..., 1:-1, 1:-1])
        smooth[..., 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)
    return blend(smooth, x, 1 + sign.double() * m)


def posterize(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """The m top bits, m rounded half to even."""
    return x & (0xFF & ~(2 ** (8 - round(m)) - 1))


def solarize(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Values from m on inverted."""
    return torch.where(x.double() < m, x, 255 - x)


def invert(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """255 minus each value."""
    return 255 - x


def autocontrast(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Each channel stretched to 0..255; one of a single value stays."""
    low, high = x.amin(dim=(2, 3), keepdim=True).double(), x.amax(dim=(2, 3), keepdim=True).double()
    scale = torch.full_like(low, 255.0) / (high - low)  # a number over a tensor would be rounded twice
    stretched = (x.double() * scale + -low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, x.double()).to(torch.uint8)


def equalize(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Each channel's histogram made even."""
    values = x.flatten(2).long()
    counts = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    step = (values.shape[2] - counts.gather(2, values.amax(dim=2, keepdim=True))) // 255
    table = (step // 2 + counts.cumsum(2) - counts) // step.clamp_min(1)
    levels = table.clamp_max(255).gather(2, values)
    return torch.where(step > 0, levels, values).to(torch.uint8).view_as(x)


def shear_x(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Rows shifted by sign m times their height, bicubic."""
    n, c, h, w = x.shape
    rows = torch.arange(h, dtype=torch.float64, device=x.device) + 0.5
    cols = torch.arange(w, dtype=torch.float64, device=x.device) + 0.5
    at = cols + (sign.double() * m)[:, None, None] * rows[:, None]  # (N, H, W)
    start = (at - 0.5).floor()
    d = (at - 0.5 - start).unsqueeze(1)
    taps = (
        x.gather(3, (start.long() + k).clamp(0, w - 1).unsqueeze(1).expand(n, c, h, w)).double() for k in range(-1, 3)
    )
    v1, v2, v3, v4 = taps
    curved = v2 + d * (-v1 + v3 + d * (2 * (v1 - v2) + v3 - v4 + d * (-v1 + v2 - v3 + v4)))
    inside = ((at >= 0) & (at < w)).unsqueeze(1)
    return torch.where(inside, curved.clamp(0, 255), FILL).to(torch.uint8)


def shear_y(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Columns shifted by sign m times their place, bicubic."""
    return shear_x(x.transpose(2, 3), m, sign).transpose(2, 3)


def translate_x(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Shifted by sign m widths, nearest."""
    n, c, h, w = x.shape
    cols = torch.arange(w, dtype=torch.float64, device=x.device) + 0.5
    at = cols + (sign.double() * m * w)[:, None]  # (N, W)
    inside = ((at >= 0) & (at < w))[:, None, None]
    return torch.where(inside, x.gather(3, at.long().clamp(0, w - 1)[:, None, None].expand(n, c, h, w)), FILL)


def translate_y(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Shifted by sign m heights, nearest."""
    return translate_x(x.transpose(2, 3), m, sign).transpose(2, 3)


def rotate(x: Tensor, m: float, sign: Tensor) -> Tensor:
    """Turned counter-clockwise by m degrees about the centre, nearest."""
    h, w = x.shape[2:]
    cos, sin = (round(f(-math.radians(m)), 15) for f in (math.cos, math.sin))
    left, top = cos * (-w / 2) + sin * (-h / 2) + w / 2, -sin * (-w / 2) + cos * (-h / 2) + h / 2

    def fixed(value: float) -> int:
        return math.floor(value * 65536 + 0.5)

    i, j = torch.arange(h, device=x.device)[:, None], torch.arange(w, device=x.device)
    cols = (fixed(left + cos * 0.5 + sin * 0.5) + i * fixed(sin) + j * fixed(cos)) >> 16
    rows = (fixed(top - sin * 0.5 + cos * 0.5) + i * fixed(cos) + j * fixed(-sin)) >> 16
    inside = (cols >= 0) & (cols < w) & (rows >= 0) & (rows < h)
    return torch.where(inside, x[..., rows.clamp(0, h - 1), cols.clamp(0, w - 1)], FILL)


Operation = Callable[[Tensor, float, Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {
    "shearX": shear_x,
    "shearY": shear_y,
    "translateX": translate_x,
    "translateY": translate_y,
    "rotate": rotate,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
}
"""Operation by name: (pixels, magnitude, (N,) signs of 1 and -1) -> pixels."""


@dataclass(frozen=True)
class Chain:
    """Operations in a fixed order, each applied to each image with one probability.

    Attributes:
        ops: names and magnitudes.
        p: the probability.
    """

    ops: tuple[tuple[str, float], ...]
    p: float

    def apply(self, pixels: Tensor, uniform: Tensor, sign: Tensor) -> Tensor:
        """The images after the operations whose draw is below ``p``.

        Args:
            pixels: (N, C, H, W) uint8.
            uniform: (N, R) draws from [0, 1), one an operation.
            sign: (N, R) of 1 and -1.
        """
        for r, (name, magnitude) in enumerate(self.ops):
            chosen = (uniform[:, r] < self.p)[:, None, None, None]
            pixels = torch.where(chosen, OPERATIONS[name](pixels, magnitude, sign[:, r]), pixels)
        return pixels

    def __call__(self, pixels: Tensor, rng: torch.Generator) -> Tensor:
        """(2, N, C, H, W): the images as they are, and after the chain."""
        size = (len(pixels), len(self.ops))
        uniform = torch.rand(size, generator=rng, device=pixels.device)
        sign = 2 * torch.randint(2, size, generator=rng, device=pixels.device) - 1
        return torch.stack([pixels, self.apply(pixels, uniform, sign)])


def magnitude(name: str, place: int) -> float:
    """Magnitude number ``place`` (0 to 9) of an operation's even grid; posterize counts whole bits."""
    value = float(np.linspace(*RANGES[name], GRID)[place])
    return float(round(value)) if name == "posterize" else value


POLICIES: dict[str, tuple[float, str]] = {
    "cifar100": (
        0.3,
        "autocontrast2 contrast3 posterize0 solarize4 translateY8 shearX5 brightness3 shearY0 translateX1 sharpness5 "
        "invert4 color4 equalize8 rotate3",
    ),
    "cifar10": (
        0.5,
        "invert7 rotate2 shearY8 posterize9 autocontrast8 color3 sharpness9 equalize5 contrast7 translateY3 "
        "brightness6 solarize2 translateX3 shearX8",
    ),
    "imagenet": (
        0.2,
        "posterize8 solarize5 equalize8 posterize7 equalize7 equalize4 solarize3 posterize5 rotate3 equalize8 rotate8 "
        "rotate9 equalize7 invert4 color4 rotate8 color8 sharpness7 shearX5 color0 equalize7 solarize5 invert4 color4 "
        "equalize8",
    ),
}
"""The authors' lists: probability, and operations with the number of their magnitude."""


def chain(policy: str, p: float | None = None) -> Chain:
    """The chain of a policy; ``p`` instead of its own probability where given."""
    own, names = POLICIES[policy]
    ops = ((word[:-1], magnitude(word[:-1], int(word[-1]))) for word in names.split())
    return Chain(tuple(ops), own if p is None else p)


def jda(task: TaskInfo, nets: tuple[Network, ...], policy: str, p: float | None = None) -> Views:
    """Two views of the networks' common picture: plain and after a policy's chain, then augmented each by itself.

    Raises:
        NotApplicable: the networks' inputs come from different pictures, or from none that is 8-bit grey or RGB.
    """
    names = pictures(task, nets)
    row = task.rows(torch.zeros(1, dtype=torch.long, device=task.device))
    for name in names:
        if row.x[name].dtype is not torch.uint8 or row.x[name].shape[1] not in (1, 3):
            raise NotApplicable(f"its views are of 8-bit grey or RGB images, the input {name!r} holds others")
    return Views(2, chain(policy, p), where="raw", input=names[0])
