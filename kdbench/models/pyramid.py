"""Backbones and pyramids of dense prediction: stage maps of any net of the zoo or of timm, brought to one width."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.models.base import Staged


class Stages(NamedTuple):
    """What a backbone returns: its stages' maps after and, where it has them, before the activation; its stem's."""

    maps: tuple[Tensor, ...]
    preact: tuple[Tensor, ...] = ()
    stem: Tensor | None = None


class Body(nn.Module):
    """Stem and stages of a net of the zoo, without its head and classifier."""

    def __init__(self, net: Staged) -> None:
        super().__init__()
        self.stem = net.stem
        self.stages = net.trunk.stages

    def forward(self, x: Tensor) -> Stages:
        stem = self.stem(x) if self.stem is not None else None
        x, maps, preact = x if stem is None else stem, [], []
        for stage in self.stages:
            x, before = stage(x)
            maps.append(x)
            preact.append(before)
        return Stages(tuple(maps), tuple(preact), stem)

    def cut(self, stages: int) -> None:
        """Leaves out what follows the first ``stages``."""
        self.stages = self.stages[:stages]

    def norm(self, stage: int) -> Any:
        """The batch norm before a stage's activation, None where there is none."""
        return self.stages[stage].norm

    def pretrained(self) -> dict[str, Tensor] | None:
        """The state that comes with the net; None, for the zoo ships none."""
        return None


class TimmBody(nn.Module):
    """The feature points of a net of timm.

    Args:
        stride: of the last one, where the net's convolutions can be dilated to it; None for the net's own.

    Raises:
        UserError: no such net, or one without feature points, or it refuses the input.
    """

    def __init__(self, name: str, in_channels: int, stride: int | None = None) -> None:
        super().__init__()
        import timm  # seconds

        from kdbench.base.errors import nearest

        if not timm.is_model(name.split(".")[0]):
            raise UserError(f"timm has no net {name!r}{nearest(name, timm.list_models())}")
        self._made: dict[str, Any] = {"model_name": name, "features_only": True, "in_chans": in_channels}
        if stride is not None:
            self._made["output_stride"] = stride
        try:
            self.body: Any = timm.create_model(**self._made)
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"timm net {name!r} cannot be a backbone: {error}; choose another net") from error
        points: Any = self.body.feature_info
        self.points = len(points)

    def forward(self, x: Tensor) -> Stages:
        return Stages(tuple(self.body(x)[: self.points]))

    def cut(self, stages: int) -> None:
        """Leaves out what follows the first ``stages`` feature points."""
        import timm

        self.points = stages
        self._made["out_indices"] = tuple(range(stages))
        state = self.body.state_dict()
        self.body = timm.create_model(**self._made)
        self.body.load_state_dict({key: state[key] for key in self.body.state_dict()})

    def norm(self, stage: int) -> None:
        """None: timm's nets have no common notion of it."""
        return

    def pretrained(self) -> dict[str, Tensor] | None:
        """The state that timm ships."""
        import timm

        shipped = timm.create_model(pretrained=True, **self._made).state_dict()
        return {f"body.{key}": value for key, value in shipped.items()}


class Neck(nn.Module):
    """A feature pyramid (torchvision's), and coarser levels behind its last one.

    Args:
        inputs: channels of the backbone's maps that it reads.
        channels: of every level.
        more: coarser levels.
        picked: they are every second cell of the level before, as of Faster R-CNN, and no 3x3 convolutions of stride 2.
    """

    def __init__(self, inputs: list[int], channels: int, more: int, picked: bool = False) -> None:
        super().__init__()
        self.fpn = FeaturePyramidNetwork(inputs, channels)
        self._picks = more if picked else 0
        coarser = [nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(0 if picked else more)]
        self.coarser = nn.ModuleList(coarser)
        for conv in coarser:
            nn.init.kaiming_uniform_(conv.weight, a=1)  # as torchvision starts its P6 and P7
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        levels = list(self.fpn(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())
        for number, conv in enumerate(self.coarser):
            levels.append(conv(levels[-1].relu() if number else levels[-1]))
        for _ in range(self._picks):
            levels.append(levels[-1][..., ::2, ::2])
        return tuple(levels)


class Pyramid(NamedTuple):
    """A backbone and its pyramid.

    Attributes:
        reads: stages of the backbone that the pyramid reads.
        strides: pixels between cells, of each level.
    """

    body: Body | TimmBody
    neck: Neck
    reads: tuple[int, ...]
    strides: tuple[int, ...]


def pyramid(
    net: str, input_shape: tuple[int, ...], channels: int, finest: int, coarsest: int, picked: bool = False
) -> Pyramid:
    """The pyramid of a net: levels of strides ``finest``, twice that, and so on to ``coarsest``.

    Args:
        picked: as of :class:`Neck`.

    Raises:
        UserError: the net has no stages, or none at a stride that the pyramid begins with or passes.
    """
    body = backbone(net, input_shape)
    widths, strides = measured(body, net, input_shape)
    wanted = [finest]
    while wanted[-1] < coarsest:
        wanted.append(2 * wanted[-1])
    if wanted[-1] != coarsest:
        raise UserError(f"a pyramid's strides double from {finest}, and never become {coarsest}; change the net's name")
    last = {stride: stage for stage, stride in enumerate(strides)}  # of stages of one stride the deepest
    reads = [last[stride] for stride in wanted if stride in last]
    if [stride for stride in wanted if stride in last] != wanted[: len(reads)] or not reads:
        raise UserError(
            f"net {net!r} has stages at strides {', '.join(map(str, strides))}, no pyramid from {finest} to {coarsest} "
            "can be built on them; change the strides in the net's name"
        )
    body.cut(reads[-1] + 1)
    neck = Neck([widths[stage] for stage in reads], channels, len(wanted) - len(reads), picked)
    return Pyramid(body, neck, tuple(reads), tuple(wanted))


def backbone(net: str, input_shape: tuple[int, ...], stride: int | None = None) -> Body | TimmBody:
    """The stages of a net of the zoo or of timm; ``stride`` as of :class:`TimmBody`.

    Raises:
        UserError: the net has no stages.
    """
    if net.startswith("timm:"):
        return TimmBody(net.removeprefix("timm:"), input_shape[0], stride)
    built = models.build(net, input_shape, 2)
    if not isinstance(built, Staged):
        raise UserError(f"net {net!r} cannot be a backbone: it is no net of stages; choose another one")
    return Body(built)


@torch.no_grad()
def measured(body: nn.Module, net: str, input_shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Channels and strides of a backbone's stages."""
    side = max(64, *input_shape[1:])  # strides of a picture smaller than a stride cannot be told
    body.eval()
    try:
        maps = body(torch.zeros(1, input_shape[0], side, side)).maps
    except (AssertionError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"net {net!r} cannot read {side}-pixel pictures: {line}; choose another net") from error
    finally:
        body.train()
    if any(x.ndim != 4 for x in maps):
        raise UserError(f"net {net!r} cannot be a backbone: its stages are no maps; choose another net")
    return [x.shape[1] for x in maps], [round(side / x.shape[-1]) for x in maps]
