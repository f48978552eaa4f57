"""Weights that hang on their names alone, for nets that are built in two places."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def filled(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Values that hang on the published key alone."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return torch.from_numpy(0.5 + rng.random(shape))
    return torch.from_numpy(rng.standard_normal(shape) * (1.0 / max(1, np.prod(shape[1:]))) ** 0.5)
