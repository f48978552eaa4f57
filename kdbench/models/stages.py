"""Which places of a net are its stem and its stages, by how much smaller than the input its maps are there."""

from __future__ import annotations

from collections.abc import Sequence

STEM_REDUCTION = 4
"""Feature points at a lower reduction than this belong to the stem."""

QUARTERS = 4


def stage_points(reductions: Sequence[int]) -> tuple[int | None, list[int]]:
    """Which of a net's feature points are its stem and its stages.

    Stages are the deepest points of each reduction from 4 on; a net of one reduction throughout (ViT, Mixer) is cut
    into quarters of its depth. The stem is the deepest point before the first stage, None where there is none.

    Args:
        reductions: input size over map size of each feature point, shallow to deep.
    """
    count = len(reductions)
    deepest = [i for i in range(count) if i + 1 == count or reductions[i + 1] != reductions[i]]
    stages = [i for i in deepest if reductions[i] >= STEM_REDUCTION]
    if len(set(reductions)) == 1:
        return None, sorted({-(-count * part // QUARTERS) - 1 for part in range(1, QUARTERS + 1)})
    before = [i for i in deepest if reductions[i] < STEM_REDUCTION]
    return (before[-1] if before else None), stages
