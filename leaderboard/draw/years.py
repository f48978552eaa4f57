"""Differences against the year of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdbench.leaderboard.draw.charts import TOLD, Interval, Mark, decimals, labels, linear_axis, shown
from kdbench.leaderboard.draw.numbers import signed
from kdbench.leaderboard.draw.svg import element, figure, line, marker, text


@dataclass(frozen=True)
class Dated:
    """A method by the year of its paper; ``told`` is what its difference is taken for."""

    name: str
    year: int
    y: Interval
    told: str = ""


def by_year(
    key: str, points: Sequence[Dated], *, title: str, label: str, unit: str, digits: int, narrow: bool = False
) -> Markup:
    """Methods of one year side by side, worst to the left; means far off the rest stand on the edge.

    Args:
        points: at least one.
    """
    width, height = (400.0, 340.0) if narrow else (760.0, 360.0)
    left, right, top, bottom = (48.0 if narrow else 58.0), 16.0, 30.0, 34.0
    lo, hi = shown([p.y for p in points], 0.0)
    y_on, y_ticks = linear_axis([lo, hi], height - bottom, top)
    years = sorted({p.year for p in points})
    slot = (width - right - left) / (years[-1] - years[0] + 1)

    def y_of(value: float) -> float:
        return y_on(min(max(value, lo), hi))

    parts = [line(left, y_on(t), width - right, y_on(t), "zero" if t == 0 else "grid") for t in y_ticks]
    parts += [text(left - 9, y_on(t) + 4, signed(t, decimals(y_ticks)), "tick", "end") for t in y_ticks]
    parts.append(text(4, 16, label, "axis-label"))
    marks = []
    for year in years:
        start = left + slot * (year - years[0])
        parts.append(text(start + slot / 2, height - bottom + 20, str(year), "tick", "middle"))
        group = sorted((p for p in points if p.year == year), key=lambda p: (p.y[0], p.name))
        for n, p in enumerate(group):
            x, y = start + slot * (n + 0.5) / len(group), y_of(p.y[0])
            shape, side = TOLD.get(p.told, (1, ""))
            inside = [
                element("title", f"{p.name}, {year}: {signed(p.y[0], digits)} {unit}"),
                line(x, y_of(p.y[1]), x, y_of(p.y[2]), f"ci {side}".strip()),
                marker(x, y, shape, f"mark {side}".strip(), 4.0),
            ]
            parts.append(element("g", *inside, class_="point", data_method=p.name))
            marks.append(Mark(p.name, p.name, x, y, False))
    parts += labels(marks, (left, top, width - right, height - bottom))
    about = f"{len(points)} methods. {label} upwards, the year of the paper to the right. Bars are 95 % intervals."
    return figure(width, height, key, title, about, parts, "years")
