"""sp: similarity matrices of the last map; of every map that is given, as the published code sums over a list."""

from __future__ import annotations

from typing import Any

import torch
from imitated import imitated, numbered
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    given = list(zip(case.listed("input.feat_s."), case.listed("input.feat_t."), strict=True))
    *shallow, last = [{"input.feat_s.0": s, "input.feat_t.0": t} for s, t in given]
    rest = {name: tensor for name, tensor in tensors.items() if ".feat_" not in name}
    every = [imitated("sp", case.of(some), scalars, {"similarity_weight": 1.0})[0] for some in [*shallow, rest | last]]
    found = numbered("output.loss_kd", [one["output.loss_kd"] for one in every])
    sums = {name: torch.stack([one[name] for one in every]).sum() for name in ("output.loss_kd", "output.total")}
    return {**every[-1], **found, **sums}
