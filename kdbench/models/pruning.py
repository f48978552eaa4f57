"""A network that is another one with channels left out: which ones stay, and its weights.

The rule is that of Li, Kadav, Durdanovic, Samet & Graf (ICLR 2017): of each convolution the filters of the largest L1
norms stay, as many as the smaller net has there, each layer by itself; what follows reads those channels alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Network
from kdbench.models.base import ConvNorm
from kdbench.models.convnet import ConvNet
from kdbench.models.vgg import Vgg

CHAINS = (ConvNet, Vgg)
"""Nets whose convolutions read one after the other, each the whole of what the one before gave."""


@dataclass(frozen=True)
class Pair:
    """A layer of a net and the layer it was cut out of.

    Attributes:
        own, whole: convolution and batch norm of the smaller and of the whole net.
        kept: (C,) numbers of the whole layer's channels that stayed, ascending.
    """

    own: ConvNorm
    whole: ConvNorm
    kept: Tensor


def pairs(own: Network, whole: Network) -> list[Pair]:
    """The layers of a net, from the input on, each with that of the net it is cut out of.

    Raises:
        UserError: it cannot be that net with channels left out.
    """
    for net in (own, whole):
        if not isinstance(net, CHAINS):
            raise UserError(
                f"{type(net).__name__} is no chain of convolutions, and channels are left out of chains alone: choose "
                "nets among convnet_w<width> and vgg<depth>"
            )
    layers = [[m for m in net.modules() if isinstance(m, ConvNorm)] for net in (own, whole)]
    if type(own) is not type(whole) or len(layers[0]) != len(layers[1]):
        raise UserError(
            f"a net of {len(layers[0])} layers ({type(own).__name__}) cannot be one of {len(layers[1])} "
            f"({type(whole).__name__}) with channels left out; choose a narrower net of the same depth"
        )
    found = []
    for number, (mine, all_of_it) in enumerate(zip(*layers, strict=True), 1):
        few, many = mine.conv.weight.shape[0], all_of_it.conv.weight.shape[0]
        if few > many:
            raise UserError(
                f"layer {number} has {few} channels, more than the {many} of the net it should be cut out of; choose a "
                "narrower net"
            )
        found.append(Pair(mine, all_of_it, largest(all_of_it.conv.weight, few)))
    return found


def largest(weight: Tensor, count: int) -> Tensor:
    """(count,) numbers of the filters with the largest L1 norms, ascending; of equals the first stay.

    Args:
        weight: (C, ...) filters.
    """
    norms = weight.detach().abs().flatten(1).sum(dim=1)
    return norms.argsort(descending=True, stable=True)[:count].sort().values


@torch.no_grad()
def cut(own: Network, whole: Network) -> dict[str, Tensor]:
    """The state of a net that is ``whole`` with channels left out, by the keys of ``own``.

    Raises:
        UserError: it cannot be that net, see :func:`pairs`; or their inputs or outputs differ.
    """
    found = pairs(own, whole)
    state, names = dict(own.state_dict()), {module: name for name, module in own.named_modules()}
    read: Tensor | None = None
    for pair in found:
        for key, value in pair.whole.state_dict().items():
            part = value[pair.kept] if value.ndim else value
            if key == "conv.weight" and read is not None:
                part = part[:, read]
            state[f"{names[pair.own]}.{key}"] = part.clone()
        read = pair.kept
    last = names[own.classifier]
    assert read is not None
    state[f"{last}.weight"] = whole.classifier.weight[:, read].clone()
    state[f"{last}.bias"] = whole.classifier.bias.clone()
    shapes = {key: value.shape for key, value in own.state_dict().items()}
    wrong = [key for key, value in state.items() if shapes.get(key) != value.shape]
    if wrong or len(state) != len(shapes):
        raise UserError(
            "its weights would not fit"
            + (f" ({wrong[0]} of shape {tuple(state[wrong[0]].shape)})" if wrong else "")
            + ": both nets have to read one input, give as many outputs and have the same layers"
        )
    return state
