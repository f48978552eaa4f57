"""Blocks of vision transformers, chosen by how deep they lie."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def at_depth(blocks: Sequence[Tensor], share: float) -> Tensor:
    """What the last block of the first ``share`` of all gives, in (0, 1]: three quarters of 12 is the ninth."""
    return blocks[max(1, round(share * len(blocks))) - 1]
