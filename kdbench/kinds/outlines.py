"""Outlines of what is where in a picture, as polygons to be drawn: of masks, and of regions of a map's classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = tuple[tuple[float, float], ...]
TOLERANCE = 0.75
"""Pixels by which a drawn line may lie beside the border."""
PIXEL = 4
"""Corners of the border of one pixel, which stays as it is."""
MOST = 120
"""Outlines of a picture, those of the longest borders."""


def outlines(mask: NDArray[np.bool_]) -> list[Points]:
    """The borders of a mask's regions and of holes in them, each a polygon in shares of the picture's width and height.

    Args:
        mask: (H, W) bool.
    """
    height, width = mask.shape
    loops = [simplified(loop) for loop in _loops(mask)]
    return [tuple((float(x) / width, float(y) / height) for x, y in loop) for loop in loops]


def longest(found: list[tuple[int, Points]]) -> list[tuple[int, Points]]:
    """Of labelled outlines those of the longest borders, :data:`MOST` at most, in the order they have."""

    def length(points: Points) -> float:
        held = np.asarray(points)
        return float(np.abs(held - np.roll(held, 1, 0)).sum())

    kept = sorted(range(len(found)), key=lambda place: -length(found[place][1]))[:MOST]
    return [found[place] for place in sorted(kept)]


def _loops(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines along the edges of pixels, each (P, 2) corners x, y, with what is masked on their right."""
    padded = np.pad(mask, 1)
    here = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # From which corner of a pixel to which an edge runs, where the pixel's neighbour on that side is not masked.
    for neighbour, begin, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(here & ~neighbour).tolist():
            edges.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    loops = []
    while edges:
        first = at = next(iter(edges))
        loop = [first]
        while True:
            ways = edges[at]
            onward = ways.pop()
            if not ways:
                del edges[at]
            at = onward
            if at == first:
                break
            loop.append(at)
        loops.append(np.asarray(loop, dtype=np.float64))
    return loops


def simplified(loop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fewer corners of a closed line that stays within :data:`TOLERANCE` (Douglas and Peucker, 1973); three at least.

    Args:
        loop: (P, 2), P at least 4.
    """
    if len(loop) == PIXEL:
        return loop
    far = int(np.abs(loop - loop[0]).sum(1).argmax())
    kept = {0, far}
    closed = np.concatenate([loop, loop[:1]])
    spans = [(0, far), (far, len(loop))]
    while spans:
        low, high = spans.pop()
        if high - low < 2:
            continue
        between = closed[low + 1 : high]
        along = closed[high] - closed[low]
        away = between - closed[low]
        length = float(np.hypot(*along))
        gaps = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) / length if length else np.hypot(*away.T)
        worst = int(gaps.argmax())
        if gaps[worst] > TOLERANCE or len(kept) < 3:
            kept.add(low + 1 + worst)
            spans += [(low, low + 1 + worst), (low + 1 + worst, high)]
    return loop[sorted(kept)]
