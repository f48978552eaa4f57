"""ld: assignment and regions of the stored objects, every level's terms through the method."""

from __future__ import annotations

from typing import Any

import torch
from pyramids import OWN, objects
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Dense, Out
from kdbench.methods.ld import adapter
from kdbench.models.atss import selected
from kdbench.models.gfl import bins, edges


def rows(x: Tensor) -> Tensor:
    """(N, C, h, w) as (N, h w, C)."""
    return x.flatten(2).transpose(1, 2)


def anchors_of(h: int, w: int, stride: int, side: int, like: Tensor) -> Tensor:
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    at = stride * torch.stack([x, y], 2).view(-1, 2).to(like)
    return torch.cat([at - side * stride / 2, at + side * stride / 2], 1)


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    strides, classes = tuple(scalars["strides"]), scalars["classes"]
    cls = [case.listed(f"input.cls_{side}.") for side in "st"]
    anchors = [
        anchors_of(*x.shape[2:], stride, scalars["anchor_scale"], x) for x, stride in zip(cls[0], strides, strict=True)
    ]
    pictures = len(cls[0][0])
    y = objects(tensors["input.boxes"], tensors["input.box_image"], [[512.0, 512.0]] * pictures)
    listed = [one["boxes"] for one in y.listed()]
    chosen = torch.stack([selected(one, anchors) for one in listed])
    begins = (y.counts.cumsum(0) - y.counts)[:, None]
    numbers = torch.where(chosen >= 0, chosen + begins, -1)
    cells = [len(level) for level in anchors]
    labels = torch.where(numbers >= 0, tensors["input.labels"][numbers.clamp_min(0)], classes)
    region = torch.stack([adapter.valuable(one, anchors) for one in listed])
    found = {f"output.labels.{i}": level for i, level in enumerate(labels.split(cells, 1))}
    found |= {f"output.vlr_region.{i}": level for i, level in enumerate(region.split(cells, 1))}
    if (of := adapter.REGIONS.get(scalars["imitation"])) is not None:
        imitated = torch.stack([of(one, anchors) for one in listed]).long()
        found |= {f"output.im_region.{i}": level for i, level in enumerate(imitated.split(cells, 1))}
    sides = []
    for side, scores in zip("st", cls, strict=True):
        fpn = case.listed(f"input.feat_{side}.") or [x.new_zeros(pictures, 1, *x.shape[2:]) for x in scores]
        box = tuple(rows(x) for x in case.listed(f"input.box_{side}."))
        split = tuple(numbers.split(cells, 1))
        sides.append(
            Dense(
                tuple(fpn),
                strides,
                cls=tuple(map(rows, scores)),
                box=box,
                anchors=tuple(anchors),
                assigned=split,
                losses={OWN: fpn[0].new_zeros(())},
                decode=edges,
                bins=bins(scalars["reg_max"]),
            )
        )
    hp = {
        "edge_weight": scalars["weight_ld"], "region_weight": scalars["weight_ld_vlr"],
        "class_weight": scalars["weight_kd"], "feature_weight": scalars["weight_im"],
        "edge_temperature": float(scalars["T_ld"]), "class_temperature": float(scalars["T_kd"]),
        "imitation": scalars["imitation"],
    }  # fmt: skip
    batch = batch_of(y, rows=torch.arange(pictures))
    nets = [Stub(Out(None, dense=dense)) for dense in sides]
    made = assembled("ld", hp, batch, nets[:1], nets[1], kind="detection", train_labels=y)
    with watched(adapter.LD, "level") as calls, watched(adapter, "imitation") as features:
        terms = made.terms()
    names = {"edges": "loss_ld", "region": "loss_ld_vlr", "class": "loss_kd"}
    for i, call in enumerate(calls["level"]):
        found |= {f"output.{name}.{i}": call.result[term] for term, name in names.items()}
    for i, call in enumerate(features["imitation"]):
        found[f"output.loss_im.{i}"] = hp["feature_weight"] * call.result
    return {**found, "output.total": torch.stack([terms[name] for name in terms if name != "task"]).sum()}
