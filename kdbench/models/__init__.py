"""Networks by name: the CIFAR zoo of the distillation literature, tiny nets, those of timm, torchvision and
transformers as ``timm:<name>``, ``torchvision:<name>`` and ``hf:<id>``, and declared ones (:mod:`kdbench.specs.nets`).

Importing this module imports no torch; the module of a net is imported when the net is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.base.errors import UserError, nearest
from kdbench.models.work import (
    Work,
    bins,
    cells,
    convolutions,
    dense,
    heads,
    levels,
    on,
    sentences,
    stages,
    timm,
    torchvision,
    transformer,
    unknown,
)  # fmt: skip
from kdbench.specs import nets

if TYPE_CHECKING:
    from kdbench.contract import Network, Vocabulary

IMAGE = ("channels", "height", "width")
SERIES = ("channels", "length")
CLIP = ("channels", "frames", "height", "width")
VECTOR = ("features",)
SENTENCE = ("length",)


@dataclass(frozen=True)
class Recipe:
    """How a net is built.

    Attributes:
        module: module of this package whose ``build(input_shape, outputs, **settings)`` makes it.
        axes: names of the axes of one input, without the batch; None for a net that says itself what it cannot read.
        settings: what tells the net from others of its module.
        work: million multiply-adds of a forward pass; nothing is said of how long a task takes without it.
        sentences: whether it reads symbols of a vocabulary, None where it may; its ``build`` then takes
            ``vocabularies``.
    """

    module: str
    axes: tuple[str, ...] | None = IMAGE
    settings: Mapping[str, Any] = field(default_factory=dict)
    work: Work | None = None
    sentences: bool | None = False

    @property
    def within(self) -> str | None:
        """The net that the net is built around, None without one."""
        return self.settings.get("net")


def _image(module: str, work: float, **settings: Any) -> Recipe:
    """A net of pictures; ``work`` is counted on 3x32x32."""
    return Recipe(module, settings=settings, work=on(work, 32, 32))


def _resnet(depths: tuple[int, ...], widths: tuple[int, ...], work: float, block: str = "basic") -> Recipe:
    return _image("resnet", work, depths=depths, widths=widths, block=block)


def _clips(work: float, depths: tuple[int, ...], width: int) -> Recipe:
    """A net of clips; ``work`` is counted on 3x16x112x112."""
    return Recipe("video", CLIP, {"depths": depths, "width": width}, on(work, 16, 112, 112))


def _within(shape: tuple[int, ...], settings: Mapping[str, Any]) -> float | None:
    """Work of a net around another: the other's."""
    return work(settings["net"], shape)


def around(more: Work) -> Work:
    """Work of a net around a backbone: the backbone's, and that of what reads it."""

    def both(shape: tuple[int, ...], settings: Mapping[str, Any]) -> float | None:
        body, read = work(settings["net"], shape), more(shape, settings)
        return None if body is None or read is None else body + read

    return both


THIN = (16, 16, 32, 64)
WIDE = (64, 64, 128, 256, 512)
DEEP = {8: 12.51, 14: 26.66, 20: 40.82, 32: 69.13, 44: 97.44, 56: 125.75, 110: 253.16}
"""Depths of the thin residual nets, and their work."""

ZOO: dict[str, Recipe] = {
    **{f"resnet{depth}": _resnet(((depth - 2) // 6,) * 3, THIN, work) for depth, work in DEEP.items()},
    "resnet8x4": _resnet((1, 1, 1), (32, 64, 128, 256), 177.07),
    "resnet32x4": _resnet((5, 5, 5), (32, 64, 128, 256), 1083.04),
    "resnet18": _resnet((2, 2, 2, 2), WIDE, 555.47),
    "resnet34": _resnet((3, 4, 6, 3), WIDE, 1159.4),
    "resnet50": _resnet((3, 4, 6, 3), WIDE, 1298.01, "bottleneck"),
    "wrn_16_1": _image("wrn", 26.66, depth=16, widen=1),
    "wrn_16_2": _image("wrn", 101.12, depth=16, widen=2),
    "wrn_40_1": _image("wrn", 83.29, depth=40, widen=1),
    "wrn_40_2": _image("wrn", 327.61, depth=40, widen=2),
    "vgg8": _image("vgg", 96.19, depths=(1, 1, 1, 1, 1)),
    "vgg11": _image("vgg", 209.44, depths=(1, 1, 2, 2, 2)),
    "vgg13": _image("vgg", 284.94, depths=(2, 2, 2, 2, 2)),
    "vgg16": _image("vgg", 398.18, depths=(2, 2, 3, 3, 3)),
    "vgg19": _image("vgg", 511.43, depths=(2, 2, 4, 4, 4)),
    "mobilenetv2": _image("mobilenet", 6.52),
    "mobilenetv2_s1": _image("mobilenet", 25.0, stem_stride=1),
    "shufflenetv1": _image("shufflenet", 38.69, version=1),
    "shufflenetv1_relu": _image("shufflenet", 38.69, version=1, relu=True),
    "shufflenetv2": _image("shufflenet", 44.50, version=2),
    "r2plus1d_18": _clips(21_350.0, (1, 1, 1, 1), 64),
    "r2plus1d_34": _clips(75_000.0, (3, 4, 6, 3), 64),
    "r2plus1d_tiny": _clips(120.0, (1, 1, 1), 16),
    "linear": Recipe("mlp", VECTOR, work=dense),
}
"""Nets of fixed name."""

_LEVELS = r"(?:c(?P<channels>[1-9][0-9]*))?(?:s(?P<finest>[1-9][0-9]*)-(?P<coarsest>[1-9][0-9]*))?"
LEVELS = rf"(?=[cs][0-9]){_LEVELS}"
"""Of a segmentation net's name: ``c`` channels of the pyramid, ``s`` its first and last stride."""
PYRAMID = (
    rf"(?=[csha][0-9]){_LEVELS}"
    r"(?:h(?P<depth>[1-9][0-9]*))?(?:a(?P<scale>[1-9][0-9]*))?"
)
"""Of a detector's name: ``c`` channels of the pyramid, ``s`` its first and last stride, ``h`` blocks of the head's
branches, ``a`` side of the smallest anchors in strides; what is left out is as in the papers."""


TWO_STAGES = (
    r"(?=[csaprfm][0-9])(?:c(?P<channels>[1-9][0-9]*))?(?:s(?P<finest>[1-9][0-9]*)-(?P<coarsest>[1-9][0-9]*))?"
    r"(?:a(?P<scale>[1-9][0-9]*))?(?:p(?P<proposals>[1-9][0-9]*))?(?:r(?P<rows>[1-9][0-9]*))?"
    r"(?:f(?P<width>[1-9][0-9]*))?"
)
"""The same of a detector of two stages: ``a`` side of the anchors in strides, ``p`` proposals of a picture, ``r`` those
drawn for the loss, ``f`` width of the second stage's layers; with masks ``m``, their part's convolutions."""


def _one_stage(name: str) -> Recipe:
    return Recipe("detector", settings={"detector": name}, work=around(heads))


def _semantic(name: str, layers: Work) -> Recipe:
    return Recipe("semantic", settings={"decoder": name}, work=around(layers))


PATTERNS: dict[str, tuple[str, Recipe]] = {
    "convnet_w<width>": (r"convnet_w(?P<width>[1-9][0-9]*)", Recipe("convnet", work=convolutions(2))),
    "convnet_w<width>_s<stages>": (
        r"convnet_w(?P<width>[1-9][0-9]*)_s(?P<stages>[2-8])",
        Recipe("convnet", work=convolutions(2)),
    ),
    "cell_w<width>d<depth>": (
        r"cell_w(?P<width>[1-9][0-9]*)d(?P<depth>[1-9][0-9]*)",
        Recipe("cell", work=cells),
    ),
    "convnet1d_w<width>": (r"convnet1d_w(?P<width>[1-9][0-9]*)", Recipe("convnet1d", SERIES, work=convolutions(1))),
    "cbam_w<width>": (r"cbam_w(?P<width>[1-9][0-9]*)", Recipe("cbam", work=convolutions(2))),
    "mlp_w<width>": (r"mlp_w(?P<width>[1-9][0-9]*)", Recipe("mlp", VECTOR, work=dense)),
    "vit_w<width>d<depth>h<heads>p<patch>": (
        r"vit_w(?P<width>[1-9][0-9]*)d(?P<depth>[1-9][0-9]*)h(?P<heads>[1-9][0-9]*)p(?P<patch>[1-9][0-9]*)",
        Recipe("vit", work=transformer),
    ),
    "timm:<name>": (r"timm:(?P<name>.+)", Recipe("timm_net", work=timm)),
    "torchvision:<name>": (r"torchvision:(?P<name>.+)", Recipe("torchvision_net", work=torchvision)),
    "hf:<id>": (r"hf:(?P<id>.+)", Recipe("hf_net", work=unknown, sentences=None)),
    "hash<bits>:<net>": (r"hash(?P<bits>[0-9]+):(?P<net>.+)", Recipe("hashing", work=_within)),
    "hash<bits>_<head>:<net>": (
        r"hash(?P<bits>[0-9]+)_(?P<form>linear|mlp):(?P<net>.+)",
        Recipe("hashing", work=_within),
    ),
    **{
        f"{name}_<pyramid>:<net>": (rf"{name}_(?:{PYRAMID}:)?(?P<net>.+)", _one_stage(name))
        for name in ("fcos", "retinanet", "gfl", "obb")
    },
    "faster_rcnn_<pyramid>:<net>": (
        rf"faster_rcnn_(?:{TWO_STAGES}:)?(?P<net>.+)",
        Recipe("two_stage", work=around(stages)),
    ),
    "mask_rcnn_<pyramid>:<net>": (
        rf"mask_rcnn_(?:{TWO_STAGES}(?:m(?P<blocks>[1-9]))?:)?(?P<net>.+)",
        Recipe("two_stage", settings={"blocks": 4}, work=around(stages)),
    ),
    **{
        f"{name}_w<width>": (
            rf"{name}_w(?P<width>[1-9][0-9]*)(?:_l(?P<layers>[1-9][0-9]?))?(?:_d(?P<dropout>[0-9]{{1,2}}))?",
            Recipe(name, SENTENCE, work=sentences, sentences=True),
        )
        for name in ("gru", "transformer", "grulm", "gpt")
    },
    "semfpn_<pyramid>:<net>": (
        rf"semfpn_(?:{LEVELS}:)?(?P<net>.+)",
        _semantic("semfpn", levels),
    ),
    "pspnet_c<channels>:<net>": (r"pspnet_(?:c(?P<channels>[1-9][0-9]*):)?(?P<net>.+)", _semantic("pspnet", bins)),
    "project<width>:<net>": (r"project(?P<width>[0-9]+):(?P<net>.+)", Recipe("projecting", work=_within)),
    "spark<width>:<net>": (r"spark(?P<width>[1-9][0-9]*):(?P<net>.+)", Recipe("sparked", work=_within)),
    "mae<width>d<layers>:<net>": (
        r"mae(?P<width>[1-9][0-9]*)d(?P<layers>[1-9][0-9]*):(?P<net>.+)",
        Recipe("mae", work=_within),
    ),
}
"""Nets whose name holds a setting: how the name is shown, the expression it matches, and its recipe.

Behind the width of a net of sentences stand, where they are not the usual ones, ``_l<layers>`` and ``_d<percent>``, its
dropout.
"""


def own() -> list[str]:
    """Names of kdbench's own nets; ``<...>`` stands for a setting."""
    return [*ZOO, *PATTERNS]


def known() -> list[str]:
    """Names :func:`build` accepts, declared ones among them."""
    return [*own(), *nets.names()]


def recipe(net: str) -> Recipe:
    """The recipe of a net.

    Raises:
        UserError: no net has this name, with the nearest; or two have it.
    """
    found = _own_recipe(net)
    if net in nets.names():
        declared = nets.find(net)
        if declared is not None and found is not None:
            raise UserError(f"two nets are called {net!r}, kdbench's own and that of {declared.where}; rename yours")
        return Recipe("hooked", axes=None, settings={"name": net})
    if found is None:
        raise UserError(
            f"no net is called {net!r}{nearest(net.lower(), known())}; nets are {', '.join(known())}, and those of a "
            "Python file named with --local"
        )
    return found


def _own_recipe(net: str) -> Recipe | None:
    if net in ZOO:
        return ZOO[net]
    for expression, found in PATTERNS.values():
        if match := re.fullmatch(expression, net):
            given = {key: value for key, value in match.groupdict().items() if value is not None}
            settings = {key: int(value) if value.isdecimal() else value for key, value in given.items()}
            made = replace(found, settings={**found.settings, **settings})
            return made if made.within is None else replace(made, axes=recipe(made.within).axes)
    return None


def family(net: str) -> str:
    """The name a net is listed under in :func:`known`: the pattern it matches, or its own."""
    return next((name for name, (e, _) in PATTERNS.items() if re.fullmatch(e, net)), net)


def folder(net: str) -> Path | None:
    """The configuration of a net that lies in a folder of one's own (``hf:./NAME``); None of any other net."""
    path = net.removeprefix("hf:")
    return Path(path).expanduser() / "config.json" if path != net and path[:1] in ("/", ".", "~") else None


def work(net: str, shape: tuple[int, ...]) -> float | None:
    """Million multiply-adds of a forward pass on one input of a shape; None where the net does not state it.

    Raises:
        UserError: no net has this name.
    """
    found = recipe(net)
    return None if found.work is None else found.work(shape, found.settings)


def build(
    net: str,
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    input_name: str = "image",
    vocabularies: tuple[Vocabulary, Vocabulary] | None = None,
) -> Network:
    """A freshly initialised network, drawn from torch's global generator.

    Args:
        net: a name of :func:`known`.
        input_shape: shape of one input without the batch, e.g. (3, 32, 32).
        outputs: classes, or 1 for a regression, whose ``logits`` are (N,).
        input_name: the input of a batch the network reads.
        vocabularies: of an input of sentences and of the targets; None of any other input.

    Raises:
        UserError: no such net, or an input of the wrong number of axes.
    """
    found = recipe(net)
    if found.sentences is not None and found.sentences != (vocabularies is not None):
        reads, holds = ("sentences", "none") if found.sentences else ("no sentences", "sentences")
        raise UserError(f"net {net!r} reads {reads}, and input {input_name!r} holds {holds}; choose another net")
    either = found.sentences is None and vocabularies is not None
    if found.axes is not None and not either and len(input_shape) != len(found.axes):
        raise UserError(
            f"net {net!r} reads inputs of ({', '.join(found.axes)}), but input {input_name!r} has shape "
            f"{tuple(input_shape)}; choose another net or another input"
        )
    module = import_module(f"{__name__}.{found.module}")
    told = {} if vocabularies is None else {"vocabularies": vocabularies}
    network: Network = module.build(tuple(input_shape), outputs, **found.settings, **told)
    network.input = input_name
    return network
