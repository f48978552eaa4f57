"""The frame the zoo's convolutional networks share: stem, stages, head, classifier.

A family says what its stages and its head are and how its weights start; taps, stage norms and stage tails follow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from kdbench.contract import Network, NotApplicable, Out


class Taps(NamedTuple):
    """What a trunk returns: stage outputs after and before the activation, and (N, D) pooled features."""

    maps: tuple[Tensor, ...]
    preact: tuple[Tensor, ...]
    emb: Tensor


class ConvNorm(nn.Sequential):
    """A convolution followed by its batch norm: ``conv``, then ``norm`` (in eval mode the two fold into one)."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, **settings: Any) -> ConvNorm:
    """2-D convolution without bias, padding ``kernel // 2``, and batch norm; ``settings`` go to the convolution."""
    settings = {"padding": kernel // 2, "bias": False, **settings}
    return ConvNorm(nn.Conv2d(inputs, outputs, kernel, stride, **settings), nn.BatchNorm2d(outputs))


class GlobalPool(nn.Module):
    """Mean over all positions: (N, C, ...) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.ndim)))


class Blocks(nn.Module):
    """Blocks at one resolution, each from a map after the activation, a ReLU, to one before it.

    The attribute ``norm`` of the last block is the batch norm before the stage's activation; a family without one
    has blocks without the attribute.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    @property
    def norm(self) -> Any:
        return getattr(self.blocks[-1], "norm", None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's map after and before its last activation."""
        before = x
        for block in self.blocks:
            before = block(x)
            x = before.relu()
        return x, before


class Trunk(nn.Module):
    """Stages, then a head that pools.

    Args:
        stages: modules from a map to (map after, map before) the activation, with a ``norm`` attribute: the batch norm
            before that activation, or None.
        head: from the last map to (N, D).
    """

    def __init__(self, stages: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = head

    def forward(self, x: Tensor) -> Taps:
        maps, preact = [], []
        for stage in self.stages:
            x, before = stage(x)
            maps.append(x)
            preact.append(before)
        return Taps(tuple(maps), tuple(preact), self.head(x))

    def norm(self, stage: int) -> Any:
        """The batch norm whose output is the stage's map before the activation, None where there is none."""
        return self.stages[stage].norm

    def after(self, stage: int) -> Trunk:
        """A copy of what follows a stage."""
        rest = copy.deepcopy(self)
        rest.stages = nn.ModuleList(list(rest.stages)[range(len(rest.stages))[stage] + 1 :])
        return rest


def scores(classifier: nn.Module, emb: Tensor) -> Tensor:
    """(N, C) scores, or (N,) predictions where the classifier has one output."""
    logits: Tensor = classifier(emb)
    return logits.squeeze(1) if logits.shape[1] == 1 else logits


class Tail(nn.Module):
    """What follows a stage: from its map to :class:`Out`. ``classifier`` may be replaced by one of other outputs."""

    def __init__(self, trunk: Trunk, classifier: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.classifier = classifier

    def forward(self, x: Tensor) -> Out:
        taps: Taps = self.trunk(x)
        return Out(scores(self.classifier, taps.emb), taps.maps, taps.preact, None, taps.emb)


class Staged(Network):
    """A network of stages.

    Args:
        stem: what comes before the first stage, None where the first stage reads the input.
        trunk: stages and head.
        features: D, the width the head returns.
        outputs: classes, or 1 for a regression.
        again: makes one more stage like the last, at stride 1 and its width throughout.
    """

    def __init__(
        self, stem: nn.Module | None, trunk: Trunk, features: int, outputs: int, again: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.stem: nn.Module | None = stem
        self.trunk = trunk
        self.fc = nn.Linear(features, outputs)
        self._again = again
        self.apply(self.initialise)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Starts one module's own weights, called for every module. Here: the framework's defaults stay."""

    unlike_published: str | None = None
    """Why weights under the published names would not compute here what they computed there; None where they would."""

    @staticmethod
    def published_key(key: str) -> str | None:
        """Our key for one of the same net in the literature's code (:mod:`kdbench.models.published`), None without."""
        return None

    def encode(self, x: Tensor) -> Out:
        stem = self.stem(x) if self.stem is not None else None
        taps: Taps = self.trunk(x if stem is None else stem)
        return Out(scores(self.fc, taps.emb), taps.maps, taps.preact, stem, taps.emb)

    @property
    def classifier(self) -> nn.Linear:
        return self.fc

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        norm = self.trunk.norm(stage)
        if norm is None:
            raise NotApplicable(f"{type(self).__name__} has no batch norm right before the activation of a stage")
        return norm.weight, norm.bias

    def tail(self, stage: int) -> Tail:
        return self._fresh(self.trunk.after(stage))

    def extra_tail(self) -> Tail:
        """A fresh tail of the last map with one more stage before the head, like the last but at stride 1 (HSAKD)."""
        trunk = self.trunk.after(-1)
        trunk.stages.append(self._again().to(self.fc.weight))
        return self._fresh(trunk)

    def _fresh(self, trunk: Trunk) -> Tail:
        rest = Tail(trunk, copy.deepcopy(self.fc)).requires_grad_(True).train()
        for module in rest.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        return rest.apply(self.initialise)


def fan_out_normal(weight: Tensor) -> None:
    """Convolution weights from N(0, 2 / (k k outputs)): He et al. 2015, arXiv 1502.01852, by the fan-out.

    Groups are not counted: a depthwise 3x3 convolution of C channels has fan-out 9 C.
    """
    nn.init.normal_(weight, 0.0, (2.0 / (weight[0, 0].numel() * weight.shape[0])) ** 0.5)
