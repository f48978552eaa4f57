"""The work of a net's forward pass, in million multiply-adds on one input: a recipe states its own. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

Shape = tuple[int, ...]
Work = Callable[[Shape, Mapping[str, Any]], float | None]
"""Of an input's shape, channels first, and a recipe's settings; None where it is not known."""

TIMM = {
    "resnet18": 1814.0, "resnet34": 3664.0, "resnet50": 4089.0, "mobilenetv2_100": 301.0,
    "resnet101": 7801.0, "resnext101_64x4d": 15_460.0, "mobilenetv1_100": 569.0,
    "convnext_tiny": 4456.0, "convnext_atto": 547.0, "vit_base_patch16_224": 17_564.0, "efficientnet_b0": 386.0,
}  # fmt: skip
"""Of timm's nets on 3x224x224, as torch's own counter of operations tells of them."""


def on(millions: float, *places: int) -> Work:
    """Work that was counted on inputs of so many places (height, width ...), with which it grows."""
    return lambda shape, settings: millions * prod(shape[1:]) / prod(places)


TORCHVISION = {
    "vit_b_16": TIMM["vit_base_patch16_224"],
    **{name: TIMM[name] for name in ("resnet18", "resnet34", "resnet50", "convnext_tiny", "efficientnet_b0")},
}
"""Of torchvision's nets on 3x224x224, those that are timm's too."""


def torchvision(shape: Shape, settings: Mapping[str, Any]) -> float | None:
    """Work of a net of torchvision, where it is known."""
    name = settings["name"]
    return on(TORCHVISION[name], 224, 224)(shape, settings) if name in TORCHVISION else None


def unknown(shape: Shape, settings: Mapping[str, Any]) -> None:
    """Of nets that nobody counted."""
    return


def timm(shape: Shape, settings: Mapping[str, Any]) -> float | None:
    """Work of a net of timm, where it is known."""
    name = settings["name"].split(".")[0]
    return on(TIMM[name], 224, 224)(shape, settings) if name in TIMM else None


def dense(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of the first layer of an MLP, which is most of it."""
    return shape[0] * settings.get("width", 100) / 1e6


def convolutions(axes: int) -> Work:
    """Work of stages of one 3-wide convolution each, three unless said; each after the first halves every axis."""
    kernel, shrink = 3**axes, 2**axes

    def work(shape: Shape, settings: Mapping[str, Any]) -> float:
        width, places, count = settings["width"], float(prod(shape[1:])), settings.get("stages", 3)
        widths = (shape[0], *(width * 2**place for place in range(count)))
        stages = zip(widths, widths[1:], range(count), strict=False)
        return sum(kernel * inputs * outputs * places / shrink**place for inputs, outputs, place in stages) / 1e6

    return work


def cells(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of a stem of stride 2 and four stages of basic blocks, of widths w, 2w, 4w and 8w at strides 4 to 32."""
    width, depth, places = settings["width"], settings["depth"], float(prod(shape[1:]))
    found, inputs = 9 * shape[0] * width * places / 4, width
    for stage in range(4):
        outputs = width * 2**stage
        first = 10 * inputs * outputs + 9 * outputs**2
        found += (first + 18 * (depth - 1) * outputs**2) * places / 4 ** (stage + 2)
        inputs = outputs
    return found / 1e6


def sentences(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of an encoder and a decoder on a sentence of so many symbols, its softmax over words apart."""
    return 24 * settings["width"] ** 2 * settings.get("layers", 1) * shape[0] / 1e6


def transformer(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of a vision transformer's blocks: their linear layers, and the products of attention."""
    width, tokens = settings["width"], 1 + prod(shape[1:]) / settings["patch"] ** 2
    return settings["depth"] * (12 * tokens * width**2 + 2 * tokens**2 * width) / 1e6


def heads(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of a one-stage detector's pyramid and head, their last layers apart."""
    channels, depth = settings.get("channels", 256), settings.get("depth", 4)
    stride, found = settings.get("finest", 8), 0.0
    while stride <= settings.get("coarsest", 128):
        found += 9 * channels**2 * (1 + 2 * depth) * prod(shape[1:]) / stride**2
        stride *= 2
    return found / 1e6


def levels(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of a pyramid of 3x3 convolutions, whose levels are summed."""
    return heads(shape, {"channels": 128, "finest": 4, "coarsest": 32, **settings, "depth": 0})


def bins(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of PSPNet's 3x3 convolution of 4096 channels at stride 8, as of a residual net's; the pools are small."""
    return 9 * 4096 * settings.get("channels", 512) * prod(shape[1:]) / 64 / 1e6


def stages(shape: Shape, settings: Mapping[str, Any]) -> float:
    """Work of a two-stage detector's pyramid, its convolution for proposals, and the layers that look at them."""
    channels, width = settings.get("channels", 256), settings.get("width", 1024)
    stride, found = settings.get("finest", 4), 0.0
    while stride <= settings.get("coarsest", 64):
        found += 18 * channels**2 * prod(shape[1:]) / stride**2
        stride *= 2
    return (found + settings.get("proposals", 1000) * width * (49 * channels + width)) / 1e6
