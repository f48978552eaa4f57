"""crosskd: the student's features through a head of the stored weights, class and box terms of every level.

The stored label weights and number of positives stand for those of the detector's assignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from pyramids import crossed_heads
from torch import Tensor

from kdbench.contract import Dense, Out
from kdbench.methods.crosskd import adapter

MOST = math.log(1000 / 16)
BRANCHES = ("cls", "reg")


class Head:
    """Branches of 3x3 convolutions with ReLU, then a predictor, of the stored weights."""

    def __init__(self, case: Any, scalars: dict[str, Any]) -> None:
        self.case, self.blocks = case, scalars["stacked_convs"]
        self.width = {"cls": scalars["classes"], "reg": 4}

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.case.tensors[f"weight.{name}.{part}"] for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, padding=1)

    def tap(self, branch: str, x: Tensor, block: int) -> Tensor:
        """The output of a block, before its activation."""
        for k in range(block):
            x = self.conv(x.relu() if k else x, f"{branch}_convs.{k}")
        return x

    def after(self, branch: str, x: Tensor, block: int) -> Tensor:
        """(N, channels, h, w) of the predictor, from the output of a block."""
        for k in range(block, self.blocks):
            x = self.conv(x.relu() if k else x, f"{branch}_convs.{k}")
        return self.conv(x.relu() if self.blocks else x, f"pred_{branch}")

    def rows(self, branch: str, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(m.permute(0, 2, 3, 1).reshape(len(m), -1, self.width[branch]) for m in maps)


def decode(box: Tensor, anchors: Tensor) -> Tensor:
    """Deltas of centre and of the logarithms of the sides, these clamped."""
    sides = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + sides / 2 + box[..., :2] * sides
    half = sides * box[..., 2:].clamp(-MOST, MOST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    head, block, pyramid = Head(case, scalars), scalars["reuse_after"], case.listed("input.fpn_t.")
    strides = tuple(8 * 2**i for i in range(len(pyramid)))
    features = [case.listed(f"input.{branch}_feat_s.") for branch in BRANCHES]
    targets = [[head.tap(branch, x, block) for x in pyramid] for branch in BRANCHES]
    said = [[head.after(branch, x, 0) for x in pyramid] for branch in BRANCHES]
    seen: list[Sequence[Tensor]] = []

    def crossed(*maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        seen.extend([head.after(b, x, block) for x in branch] for b, branch in zip(BRANCHES, maps, strict=True))
        return tuple(head.rows(b, branch) for b, branch in zip(BRANCHES, seen, strict=True))

    def taps(maps: Sequence[Sequence[Tensor]]) -> dict[int, Any]:
        return {block: tuple(zip(*maps, strict=True))}

    anchors = tuple(case.listed("input.anchors."))
    zeros = tuple(torch.zeros(len(x), len(a), dtype=torch.long) for x, a in zip(pyramid, anchors, strict=True))
    loss = {"loss": torch.zeros(())}
    own = Dense(tuple(features[0]), strides, assigned=zeros, anchors=anchors, taps=taps(features), losses=loss)
    cls, box = (head.rows(b, maps) for b, maps in zip(BRANCHES, said, strict=True))
    theirs = Dense(tuple(pyramid), strides, cls=cls, box=box, anchors=anchors, taps=taps(targets), decode=decode)
    hp = {"reuse_after": block, "beta": scalars["beta"], "class_weight": scalars["weight_cls"]}
    hp |= {"box_weight": scalars["weight_reg"], "box_loss": "giou"}
    made = crossed_heads("crosskd", hp, Out(None, dense=own), Out(None, dense=theirs), crossed)
    counts = case.listed("input.label_weights.")
    positives = torch.tensor(float(scalars["avg_factor"]), dtype=case.dtype)
    with patch.object(adapter, "counted", return_value=(torch.cat(counts, 1), positives)):
        terms = made.terms()
    found = {"output.total": torch.stack(list(terms.values())).sum()}
    shared = 1 / (positives + adapter.MACHINE)
    for i, a in enumerate(counts):
        found |= {f"output.teacher_{b}.{i}": said[n][i] for n, b in enumerate(BRANCHES)}
        found |= {f"output.reused_{b}.{i}": seen[n][i] for n, b in enumerate(BRANCHES)}
        logits, boxes = (head.rows(b, maps)[i] for b, maps in zip(BRANCHES, seen, strict=True))
        classes = adapter.class_term(logits, cls[i], a, hp["beta"])
        decoded = (decode(one, anchors[i]) for one in (boxes, box[i]))
        distance = adapter.box_term(hp["box_loss"], *decoded, cls[i], a)
        found[f"output.loss_cls_kd.{i}"] = hp["class_weight"] * shared * classes
        found[f"output.loss_reg_kd.{i}"] = hp["box_weight"] * shared * distance
    return found
