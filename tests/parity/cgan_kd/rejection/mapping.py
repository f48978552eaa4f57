"""cgan_kd: rejection by density ratio; the sampler itself runs on the stored proposals, numbered in order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.methods.cgan_kd.sampling import Rejection, accept

GIVEN = ("burnin_ratios", "batch_ratios", "uniforms")


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    ratios, uniforms = tensors["batch_ratios"].detach(), tensors["uniforms"].detach()
    burn_in = tensors["burnin_ratios"].detach()
    rounds, batch = ratios.shape
    numbers = torch.arange(rounds * batch).view(rounds, batch)
    proposals = iter([(torch.arange(len(burn_in)), burn_in), *zip(numbers, ratios, strict=True)])
    draws = iter(uniforms)
    sampler = Rejection(lambda n: next(proposals), lambda n: next(draws), len(burn_in), batch, scalars["label"], rounds)
    maximum, maxima, accepted = burn_in.max(), [], []
    for row, psi in zip(ratios, uniforms, strict=True):
        taken, maximum = accept(row, psi, maximum)
        maxima.append(maximum)
        accepted.append(taken)
    return {
        "running_max": torch.stack(maxima),
        "accepted": torch.stack(accepted),
        "selected": sampler(scalars["n_fake"]),
    }
