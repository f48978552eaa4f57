"""Networks by name: the CIFAR zoo of the distillation literature, tiny nets, and anything of timm as ``timm:<name>``.

Importing this module imports no torch; the module of a net is imported when the net is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdbench.base.errors import UserError, nearest

if TYPE_CHECKING:
    from kdbench.contract import Network

IMAGE = ("channels", "height", "width")
SERIES = ("channels", "length")
CLIP = ("channels", "frames", "height", "width")
VECTOR = ("features",)


@dataclass(frozen=True)
class Recipe:
    """How a net is built.

    Attributes:
        module: module of this package whose ``build(input_shape, outputs, **settings)`` makes it.
        axes: names of the axes of one input, without the batch.
        settings: what tells the net from others of its module.
    """

    module: str
    axes: tuple[str, ...] = IMAGE
    settings: Mapping[str, Any] = field(default_factory=dict)


def _resnet(depths: tuple[int, ...], widths: tuple[int, ...], block: str = "basic") -> Recipe:
    return Recipe("resnet", settings={"depths": depths, "widths": widths, "block": block})


THIN = (16, 16, 32, 64)
WIDE = (64, 64, 128, 256, 512)

ZOO: dict[str, Recipe] = {
    **{f"resnet{depth}": _resnet(((depth - 2) // 6,) * 3, THIN) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _resnet(((depth - 2) // 6,) * 3, (32, 64, 128, 256)) for depth in (8, 32)},
    "resnet18": _resnet((2, 2, 2, 2), WIDE),
    "resnet34": _resnet((3, 4, 6, 3), WIDE),
    "resnet50": _resnet((3, 4, 6, 3), WIDE, "bottleneck"),
    **{
        f"wrn_{depth}_{widen}": Recipe("wrn", settings={"depth": depth, "widen": widen})
        for depth in (16, 40)
        for widen in (1, 2)
    },
    "vgg8": Recipe("vgg", settings={"depths": (1, 1, 1, 1, 1)}),
    "vgg11": Recipe("vgg", settings={"depths": (1, 1, 2, 2, 2)}),
    "vgg13": Recipe("vgg", settings={"depths": (2, 2, 2, 2, 2)}),
    "vgg16": Recipe("vgg", settings={"depths": (2, 2, 3, 3, 3)}),
    "vgg19": Recipe("vgg", settings={"depths": (2, 2, 4, 4, 4)}),
    "mobilenetv2": Recipe("mobilenet"),
    "mobilenetv2_s1": Recipe("mobilenet", settings={"stem_stride": 1}),
    "shufflenetv1": Recipe("shufflenet", settings={"version": 1}),
    "shufflenetv1_relu": Recipe("shufflenet", settings={"version": 1, "relu": True}),
    "shufflenetv2": Recipe("shufflenet", settings={"version": 2}),
    "r2plus1d_18": Recipe("video", CLIP, {"depths": (1, 1, 1, 1), "width": 64}),
    "r2plus1d_34": Recipe("video", CLIP, {"depths": (3, 4, 6, 3), "width": 64}),
    "r2plus1d_tiny": Recipe("video", CLIP, {"depths": (1, 1, 1), "width": 16}),
    "linear": Recipe("mlp", VECTOR),
}
"""Nets of fixed name."""

PATTERNS: dict[str, tuple[str, Recipe]] = {
    "convnet_w<width>": (r"convnet_w(?P<width>[1-9][0-9]*)", Recipe("convnet")),
    "convnet1d_w<width>": (r"convnet1d_w(?P<width>[1-9][0-9]*)", Recipe("convnet1d", SERIES)),
    "mlp_w<width>": (r"mlp_w(?P<width>[1-9][0-9]*)", Recipe("mlp", VECTOR)),
    "timm:<name>": (r"timm:(?P<name>.+)", Recipe("timm_net")),
}
"""Nets whose name holds a setting: how the name is shown, the expression it matches, and its recipe."""


def known() -> list[str]:
    """Names :func:`build` accepts; ``<...>`` stands for a setting."""
    return [*ZOO, *PATTERNS]


def recipe(net: str) -> Recipe:
    """The recipe of a net.

    Raises:
        UserError: no net has this name; the message suggests the nearest.
    """
    if net in ZOO:
        return ZOO[net]
    for expression, found in PATTERNS.values():
        if match := re.fullmatch(expression, net):
            settings = {key: int(value) if value.isdecimal() else value for key, value in match.groupdict().items()}
            return Recipe(found.module, found.axes, {**found.settings, **settings})
    hint = nearest(net.lower(), known())
    raise UserError(f"no net is called {net!r}{hint}; nets are {', '.join(known())}")


def family(net: str) -> str:
    """The name a net is listed under in :func:`known`: the pattern it matches, or its own."""
    return next((name for name, (e, _) in PATTERNS.items() if re.fullmatch(e, net)), net)


def build(net: str, input_shape: tuple[int, ...], outputs: int, *, input_name: str = "image") -> Network:
    """A freshly initialised network, drawn from torch's global generator.

    Args:
        net: a name of :func:`known`.
        input_shape: shape of one input without the batch, e.g. (3, 32, 32).
        outputs: classes, or 1 for a regression, whose ``logits`` are (N,).
        input_name: the input of a batch the network reads.

    Raises:
        UserError: no such net, or an input of the wrong number of axes.
    """
    found = recipe(net)
    if len(input_shape) != len(found.axes):
        raise UserError(
            f"net {net!r} reads inputs of ({', '.join(found.axes)}), but input {input_name!r} has shape "
            f"{tuple(input_shape)}; choose another net or another input"
        )
    module = import_module(f"{__name__}.{found.module}")
    network: Network = module.build(tuple(input_shape), outputs, **found.settings)
    network.input = input_name
    return network
