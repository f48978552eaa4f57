"""spark: a net around an encoder of the authors' form, and the loss of hidden patches, as plain minimises it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.contract import Batch, Network, Out
from kdbench.models.sparked import SparkNet


class Encoder(Network):
    """Stages of a convolution of stride 2, batch norm, ReLU."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        sizes = zip([3, *channels], channels, strict=False)
        self.enc = nn.ModuleList(
            nn.ModuleDict({"conv": nn.Conv2d(i, o, 3, 2, 1, bias=False), "bn": nn.BatchNorm2d(o)}) for i, o in sizes
        )

    def encode(self, x: Tensor) -> Out:
        maps = []
        for stage in self.enc:
            x = stage["bn"](stage["conv"](x)).relu()
            maps.append(x)
        return Out(None, tuple(maps))


def names(stages: int) -> dict[str, str]:
    """Beginnings of the stored names to those of the net's."""
    found = {
        f"{part}{place}.": f"decoder.{own}.{place}." for place in range(stages) for part, own in [("dec", "blocks")]
    }
    for place in range(stages):
        found |= {
            f"enc{place}.": f"body.enc.{place}.",
            f"densify_norm{place}.": f"decoder.densify.{place}.norm.",
            f"densify_proj{place}.": f"decoder.densify.{place}.proj.",
            f"mask_token{place}": f"decoder.densify.{place}.token",
        }
    return {**found, "proj.": "decoder.proj."}


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    stages, image, visible = len(scalars["channels"]), tensors["image"], tensors["visible"]
    net = SparkNet(Encoder(scalars["channels"]), tuple(image.shape[1:]), scalars["width"])
    case.bind(net, "weight.", names(stages))
    batch = Batch({"image": image}, None, torch.arange(len(image)), visible=visible, seen=int(visible[0].sum()))
    out = net(batch)
    rules = {"name": "masked", "patch": net.patch, "hide": scalars["mask"]}
    loss = kinds.kind("representation").trained(rules).loss(out, batch)
    cut = out.patches[0].unflatten(2, (net.patch, net.patch, 3)).unflatten(1, visible.shape[2:])
    found = {"reconstruction": cut.permute(0, 5, 1, 3, 2, 4).reshape(image.shape), "loss_total": loss}
    for place, stage in enumerate(net.body.enc):
        found[f"encoder_map_{place}"] = out.maps[place]
        found[f"enc{place}.running_mean_after"] = stage["bn"].running_mean
        found[f"enc{place}.running_var_after"] = stage["bn"].running_var
    return found
