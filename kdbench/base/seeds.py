"""Named random streams: every random draw of a run comes from (seed, name), so that one stream never shifts another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream ``names`` of a run's ``seed``."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *names: object) -> torch.Generator:
    """A generator of the stream ``names`` on ``device``."""
    import torch

    return torch.Generator(device).manual_seed(derive(seed, *names))
