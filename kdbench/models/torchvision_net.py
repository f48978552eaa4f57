"""Any classification net of torchvision behind :class:`kdbench.contract.Out`: ``torchvision:<name>``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn

from kdbench.base.errors import UserError, nearest
from kdbench.models.hooked import Hooked, look
from kdbench.models.plan import patches
from kdbench.models.stages import stage_points
from kdbench.models.trace import Call, Trace
from kdbench.specs.nets import Layout, Taps

CHANNELS = 3
TRUNKS = ("features", "trunk_output", "encoder.layers", "layers", "blocks")
"""Where torchvision keeps a net's blocks, if not in the net itself."""
POOLED = (nn.AdaptiveAvgPool2d, nn.Dropout)
"""What stands between the last map and the classifier, where a net has no trunk."""
LAYOUTS: dict[str, Layout] = {"swin": "channels last", "vit": "tokens"}
"""By the beginning of a name."""
ONE_HEAD: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Settings of nets that would have other heads beside the classifier."""


def taps_of(body: nn.Module, seen: Trace, input_shape: tuple[int, ...], layout: Layout) -> Taps:
    """Stem and stages of a net by the sizes of its maps, with the norms of residual nets."""
    calls = _points(body, seen)
    if layout == "tokens":
        _, stages = stage_points([1] * len(calls))
        return Taps(maps=tuple(calls[i].path for i in stages), layout=layout, extra=1)
    height = 1 if layout == "channels last" else 2
    sizes = [call.gave.shape[height] if call.gave is not None else 1 for call in calls]
    stem, stages = stage_points([round(input_shape[1] / size) for size in sizes])
    maps = tuple(calls[i].path for i in stages)
    norms = tuple(found for path in maps if (found := _norm(body.get_submodule(path), path)) is not None)
    own = norms if len(norms) == len(maps) else ()
    return Taps(maps=maps, norms=own, stem=None if stem is None else calls[stem].path, layout=layout)


def _points(body: nn.Module, seen: Trace) -> list[Call]:
    """Calls of the net's blocks, shallow to deep, that give maps."""
    trunk = next((path for path in TRUNKS if _has(body, path)), "")
    inner = {f"{trunk}.{name}" if trunk else name for name, _ in body.get_submodule(trunk).named_children()}
    first = next((place for place, call in enumerate(seen.calls) if call.path in inner), 0)
    before = {call.path for call in seen.calls[:first] if "." not in call.path}
    axes = 3 if trunk == "encoder.layers" else 4
    calls = [call for call in seen.calls if call.path in inner | before and not isinstance(call.module, POOLED)]
    return [call for call in calls if call.gave is not None and call.gave.ndim == axes]


def _has(body: nn.Module, path: str) -> bool:
    try:
        return next(body.get_submodule(path).children(), None) is not None
    except AttributeError:
        return False


def _norm(stage: nn.Module, path: str) -> str | None:
    """The batch norm at the end of the last block's residual branch, of a stage that is a sequence of such blocks."""
    children = list(stage.named_children()) if isinstance(stage, nn.Sequential) else []
    if not children:
        return None
    name, block = children[-1]
    last = next((norm for norm in ("bn3", "bn2") if isinstance(getattr(block, norm, None), nn.BatchNorm2d)), None)
    return f"{path}.{name}.{last}" if last is not None else None


def shipped(name: str) -> Mapping[str, Tensor]:
    """The default weights of a net, from torchvision's own store."""
    return torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False)


def build(input_shape: tuple[int, ...], outputs: int, name: str) -> Hooked:
    """A net of torchvision for (channels, height, width) inputs.

    Raises:
        UserError: no such net, or it cannot read such inputs.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"torchvision has no classification net {name!r}{nearest(name, known)}")
    full = f"torchvision:{name}"
    channels, height, width = input_shape
    if channels != CHANNELS:
        raise UserError(f"net {full!r} reads {CHANNELS} channels, the input has {channels}; give the data 3 channels")
    settings = dict(ONE_HEAD.get(name, {}))
    if name.startswith("vit"):
        if height != width:
            raise UserError(f"net {full!r} reads square pictures, not {height}x{width}; give the data one size")
        settings["image_size"] = height
    body = _made(name, full, outputs, input_shape, settings)
    known_as = (layout for start, layout in LAYOUTS.items() if name.startswith(start))
    layout: Layout = next(known_as, "channels first")
    seen = look(full, body, input_shape)
    taps = taps_of(body, seen, input_shape, layout)
    return Hooked(full, body, taps, input_shape, outputs, seen, partial(shipped, name))


def _made(name: str, full: str, outputs: int, input_shape: tuple[int, ...], settings: dict[str, Any]) -> nn.Module:
    try:
        made: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=outputs, **settings)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if (patch := _patch(name)) is not None and any(n % patch for n in input_shape[1:]):
            raise UserError(f"net {full!r}: {patches(input_shape[1:], (patch, patch))}") from error
        raise UserError(f"torchvision cannot build {name!r} for inputs of {input_shape}: {error}") from error
    return made


def _patch(name: str) -> int | None:
    """Size of a ViT's patches, the end of its name."""
    end = name.rpartition("_")[2]
    return int(end) if name.startswith("vit") and end.isdecimal() else None
