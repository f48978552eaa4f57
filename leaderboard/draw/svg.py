"""SVG by hand: elements, axes and ticks. Text and attributes are escaped here; colours come from the style sheet."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from markupsafe import Markup, escape

GROUPS = 6
"""Marker shapes; tie groups beyond the last share it."""


def number(value: float) -> str:
    """A coordinate with one decimal, so that equal drawings have equal bytes."""
    text = f"{value:.1f}"
    return "0" if text in {"0.0", "-0.0"} else text.removesuffix(".0")


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """``<name attributes>children</name>``; ``class_`` is class, ``_`` becomes ``-``, floats are rounded."""
    out = ["<", name]
    for key, value in attributes.items():
        if value is not None:
            out += [" ", _name(key), '="', number(value) if isinstance(value, float) else escape(value), '"']
    if not children:
        return Markup("".join([*out, "/>"]))
    inside = [child if isinstance(child, Markup) else escape(child) for child in children]
    return Markup("".join([*out, ">", *inside, "</", name, ">"]))


@functools.cache
def _name(key: str) -> str:
    return key if key in {"viewBox", "preserveAspectRatio"} else key.rstrip("_").replace("_", "-")


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """A line of text."""
    return element(
        "text",
        content,
        x=float(x),
        y=float(y),
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def figure(
    width: float, height: float, key: str, title: str, about: str, parts: Iterable[Markup], class_: str = ""
) -> Markup:
    """A whole drawing with its title and description; ``key`` must be unique on the page."""
    return element(
        "svg",
        element("title", title, id=f"{key}-t"),
        element("desc", about, id=f"{key}-d"),
        Markup().join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
        class_=f"fig {class_}".strip(),
    )


def marker(x: float, y: float, group: int, class_: str, size: float = 5.0) -> Markup:
    """A mark whose shape tells the tie group: circle, square, triangle, diamond, downward triangle, x."""
    shape = min(group, GROUPS - 1)
    if shape == 0:
        return element("circle", cx=float(x), cy=float(y), r=float(size), class_=class_)
    if shape == 1:
        half = size * 0.9
        return element("rect", x=x - half, y=y - half, width=2 * half, height=2 * half, class_=class_)
    s, arm = size * 1.25, size * 0.55
    corners = {
        2: [(0, -s), (s, s * 0.8), (-s, s * 0.8)],
        3: [(0, -s), (s, 0), (0, s), (-s, 0)],
        4: [(0, s), (s, -s * 0.8), (-s, -s * 0.8)],
        # Upright, it would be lost in the cross of its intervals.
        5: [(-s, arm - s), (arm - s, -s), (0, -arm), (s - arm, -s), (s, arm - s), (arm, 0),
            (s, s - arm), (s - arm, s), (0, arm), (arm - s, s), (-s, s - arm), (-arm, 0)],
    }[shape]  # fmt: skip
    points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
    return element("polygon", points=points, class_=class_)


def linear_ticks(lo: float, hi: float, count: int = 5) -> list[float]:
    """Round numbers from ``lo`` to ``hi``, about ``count`` of them."""
    if hi <= lo:
        return [lo]
    raw = (hi - lo) / max(count, 1)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= raw * 0.999)
    first = math.ceil(lo / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(hi / step + 1e-9) + 1)]


def log_ticks(lo: float, hi: float) -> list[float]:
    """Round numbers of a log axis: finer where it spans less than a decade."""
    span = math.log10(hi / lo)
    if span < 0.15:
        return linear_ticks(lo, hi, 4)
    steps = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if span < 0.7 else (1, 1.5, 2, 3, 5, 7) if span < 1.3 else (1, 2, 5)
    decades = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    return [m * 10.0**d for d in decades for m in steps if lo * 0.999 <= m * 10.0**d <= hi * 1.001]


def tick_text(value: float) -> str:
    """A tick's label."""
    return f"{value:g}".replace("-", "\u2212")
