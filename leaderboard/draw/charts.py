"""The board's charts as accessible inline SVG: cost against quality, differences, curves, dots per seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from kdbench.leaderboard.draw.numbers import fixed, signed, significant
from kdbench.leaderboard.draw.svg import element, figure, line, linear_ticks, log_ticks, marker, number, text, tick_text
from kdbench.stats import CriticalDifference

Interval = tuple[float, float, float]
"""Value and the ends of its interval; ends equal to the value where there is none."""


FEW = 8
"""With fewer methods all are named, and none is called far off."""


@dataclass(frozen=True)
class Point:
    """A method in the plane of cost and quality; ``group`` counts tie groups from 0, ``role`` is "" or ``baseline``.

    ``loose``: the measurement of its cost did not converge.
    """

    name: str
    x: Interval
    y: Interval
    group: int
    role: str = ""
    loose: bool = False


def pareto(
    key: str, points: Sequence[Point], *, title: str, x_label: str, y_label: str, unit: str, narrow: bool = False
) -> Markup:
    """Quality gained over the baseline against cost, the cost on a log axis; better is up and to the left.

    Methods far off the rest stand on the edge, their value beside their name; names that have no room are left to the
    table and to pointing, but for the front, the baseline and what is off the scale.

    Args:
        key: unique on the page.
        points: at least one, costs above 0.
        unit: of the quality axis.
    """
    width, height = (400.0, 330.0) if narrow else (760.0, 440.0)
    left, right, top, bottom = (48.0 if narrow else 58.0), 24.0, 34.0, 54.0
    x_of, x_ticks = log_axis([v for p in points for v in p.x], left, width - right)
    lo, hi = shown([p.y for p in points], 0.0)
    y_on, y_ticks = linear_axis([lo, hi], height - bottom, top)

    def y_of(value: float) -> float:
        return y_on(min(max(value, lo), hi))

    parts = [line(left, y_on(t), width - right, y_on(t), "zero" if t == 0 else "grid") for t in y_ticks]
    parts += [line(x_of(t), top, x_of(t), height - bottom, "grid") for t in x_ticks]
    parts += [text(left - 9, y_on(t) + 4, signed(t, decimals(y_ticks)), "tick", "end") for t in y_ticks]
    parts += [text(x_of(t), height - bottom + 18, tick_text(t), "tick", "middle") for t in x_ticks]
    parts.append(text((left + width - right) / 2, height - 12, x_label, "axis-label", "middle"))
    parts.append(text(4, 18, y_label, "axis-label"))
    parts.append(text(left + 8, top + 16, "\u2196 better", "hint"))
    front = _front(points)
    if len(front) > 1:
        steps = f"M{number(x_of(front[0].x[0]))} {number(y_of(front[0].y[0]))}"
        steps += "".join(f"H{number(x_of(p.x[0]))}V{number(y_of(p.y[0]))}" for p in front[1:])
        parts.append(element("path", d=steps, class_="front"))
    for p in points:
        x, y = x_of(p.x[0]), y_of(p.y[0])
        cross = _cross(x, y, (x_of(p.x[1]), x_of(p.x[2])), (y_of(p.y[1]), y_of(p.y[2])))
        about = f"{p.name}: {signed(p.y[0], 2)} {unit} at {significant(p.x[0])} times the cost of plain"
        about += ", whose measurement did not converge" if p.loose else ""
        class_ = " ".join(filter(None, ["mark", f"g{min(p.group, 5)}", p.role, "loose" if p.loose else ""]))
        inside = [element("title", about), cross, marker(x, y, p.group, class_)]
        parts.append(element("g", *inside, class_="point", data_method=p.name))
    off = {p.name: f"{p.name} {signed(p.y[0], 1)}" for p in points if not lo <= p.y[0] <= hi}
    needed = {p.name for p in front} | {p.name for p in points if p.role} | set(off)
    marks = [Mark(p.name, off.get(p.name, p.name), x_of(p.x[0]), y_of(p.y[0]), p.name in needed) for p in points]
    parts += labels(marks, (left, top, width - right, height - bottom))
    about = (
        f"{len(points)} methods. {y_label} upwards, {x_label} to the right on a log scale. "
        "Crosses are 95 % intervals; the numbers are in the table below the chart."
    )
    return figure(width, height, key, title, about, parts, "pareto")


class Difference(NamedTuple):
    """A line of a forest plot; ``interval`` is None for the reference, ``told`` what the difference is taken for."""

    name: str
    interval: Interval | None
    told: str = ""


TOLD = {"better": (2, "bet"), "worse": (4, "wor")}
"""Mark and class of a difference that counts as a finding: the arrows of the tables."""


def forest(
    key: str,
    rows: Sequence[Difference],
    *,
    title: str,
    label: str,
    unit: str,
    digits: int,
    narrow: bool = False,
) -> Markup:
    """Differences with their intervals, one line a method, the zero line being the baseline.

    Methods far off the rest stand on the edge; their values are written beside them as all are.
    """
    name_width = text_width([row.name for row in rows])
    plot, right, row_height, top = (190.0, 76.0, 26.0, 14.0) if narrow else (470.0, 96.0, 26.0, 14.0)
    left = name_width + 20.0
    width, floor = left + plot + right, top + row_height * len(rows)
    height = floor + 44
    least, most = shown([row.interval for row in rows if row.interval], 0.0)
    x_on, ticks = linear_axis([least, most], left, left + plot, 3 if narrow else 5)

    def x_of(value: float) -> float:
        return x_on(min(max(value, least), most))

    parts = [line(x_on(t), top - 6, x_on(t), floor, "zero" if t == 0 else "grid") for t in ticks]
    parts += [text(x_on(t), floor + 17, signed(t, decimals(ticks)), "tick", "middle") for t in ticks]
    parts.append(text(left + plot / 2, height - 6, label, "axis-label", "middle"))
    for i, (name, interval, told) in enumerate(rows):
        y = top + row_height * (i + 0.5)
        inside = [text(left - 12, y + 4, name, "lbl", "end")]
        if interval is None:
            inside.append(text(width - 4, y + 4, "reference", "tick", "end"))
            inside.append(marker(x_of(0), y, 0, "mark baseline", 4.5))
        else:
            value, lo, hi = interval
            shape_of, side = TOLD.get(told, (1, ""))
            inside.append(line(x_of(lo), y, x_of(hi), y, f"ci thick {side}".strip()))
            inside.append(marker(x_of(value), y, shape_of, f"mark {side}".strip(), 4.5))
            inside.append(text(width - 4, y + 4, f"{signed(value, digits)} {unit}", "num", "end"))
        parts.append(element("g", *inside, class_="point", data_method=name))
    about = (
        f"{label}, 95 % intervals. Triangles are told from 0, upward ones better, downward ones worse; squares are "
        "not. The table holds the numbers."
    )
    return figure(width, height, key, title, about, parts, "forest")


def curve(
    key: str, xs: Sequence[float], ys: Sequence[float], *, title: str, label: str, x_label: str = "epoch"
) -> Markup:
    """A line over epochs."""
    width, height, left, right, top, bottom = 420.0, 240.0, 56.0, 16.0, 28.0, 40.0
    y_of, y_ticks = linear_axis(list(ys), height - bottom, top)
    x_of, x_ticks = linear_axis(list(xs), left, width - right)
    parts = [line(left, y_of(t), width - right, y_of(t), "grid") for t in y_ticks]
    parts += [text(left - 8, y_of(t) + 4, fixed(t, decimals(y_ticks)), "tick", "end") for t in y_ticks]
    parts += [text(x_of(t), height - bottom + 16, tick_text(t), "tick", "middle") for t in x_ticks]
    parts.append(text((left + width - right) / 2, height - 6, x_label, "axis-label", "middle"))
    parts.append(text(left - 48, 16, label, "axis-label"))
    places = [(x_of(x), y_of(y)) for x, y in zip(xs, ys, strict=True)]
    d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in places)
    parts.append(element("path", d=d, class_="curve"))
    if len(places) <= 12:
        parts += [element("circle", cx=x, cy=y, r=2.0, class_="dot") for x, y in places]
    about = f"{label} over {len(xs)} points, from {significant(ys[0])} to {significant(ys[-1])}."
    return figure(width, height, key, title, about, parts, "curve-fig")


def strip(values: Sequence[float], lo: float, hi: float, mean: float) -> Markup:
    """A dot per seed on the scale all rows of a table share. Decoration beside the number: hidden from readers.

    A row off the scale has an arrow at the end it lies beyond.
    """
    width, height = 86.0, 14.0
    span = (hi - lo) or 1.0

    def x_of(value: float) -> float:
        return 4 + (width - 8) * (min(max(value, lo), hi) - lo) / span if hi > lo else width / 2

    parts = [line(2, 7, width - 2, 7, "rail")]
    if lo <= mean <= hi:
        parts.append(line(x_of(mean), 1, x_of(mean), 13, "mean"))
        parts += [element("circle", cx=x_of(v), cy=7.0, r=2.4, class_="seed") for v in values]
    else:
        end, base = (1, 8) if mean < lo else (width - 1, width - 8)
        parts.append(element("path", d=f"M{number(end)} 7L{number(base)} 3V11Z", class_="seed"))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {number(width)} {number(height)}",
        class_="strip",
        aria_hidden="true",
        focusable="false",
    )


def shape(group: int) -> Markup:
    """The mark of a tie group, for the key beside a chart."""
    mark = marker(8, 8, group, f"mark g{min(group, 5)}")
    return element("svg", mark, viewBox="0 0 16 16", class_="shape", aria_hidden="true", focusable="false")


def _cross(x: float, y: float, across: tuple[float, float], along: tuple[float, float]) -> Markup:
    """Both intervals of a mark at (x, y) as one path, which is half as long as two lines; nothing where neither is."""
    steps = f"M{number(across[0])} {number(y)}H{number(across[1])}" if across[0] != across[1] else ""
    steps += f"M{number(x)} {number(along[0])}V{number(along[1])}" if along[0] != along[1] else ""
    return element("path", d=steps, class_="ci") if steps else Markup()


def _front(points: Sequence[Point]) -> list[Point]:
    """Points that none beats on both means, cheapest first."""
    front: list[Point] = []
    for p in sorted(points, key=lambda p: (p.x[0], -p.y[0], p.name)):
        if not front or p.y[0] > front[-1].y[0]:
            front.append(p)
    return front


def shown(intervals: Sequence[Interval], *always: float) -> tuple[float, float]:
    """Ends of a scale of quality: the means, the values ``always`` on it, and intervals as far as fits.

    Means beyond Tukey's outer fences are left out where the others would get less than half of the scale. (0, 1)
    where there is nothing.
    """
    means = sorted(mean for mean, _, _ in intervals)
    if not means:
        return min(always, default=0.0), max(always, default=1.0)
    first, third = (means[round((len(means) - 1) * share)] for share in (0.25, 0.75))
    fence = 3 * (third - first)
    inner = [one for one in intervals if first - fence <= one[0] <= third + fence]
    near, every = [*always, *(one[0] for one in inner)], [*always, *means]
    if len(intervals) < FEW or max(every) - min(every) <= 2 * (max(near) - min(near)):
        inner, near = list(intervals), every
    lo, hi = min(near), max(near)
    room = (hi - lo) or math.inf
    return (
        max(min(lo, *(one[1] for one in inner)), lo - room),
        min(max(hi, *(one[2] for one in inner)), hi + room),
    )


def linear_axis(
    values: Sequence[float], start: float, end: float, count: int = 5
) -> tuple[Callable[[float], float], list[float]]:
    lo, hi = min(values), max(values)
    pad = (hi - lo) * 0.07 or max(abs(hi), 1.0) * 0.1
    lo, hi = lo - pad, hi + pad
    return (lambda v: start + (end - start) * (v - lo) / (hi - lo)), linear_ticks(lo, hi, count)


def log_axis(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    lo, hi = min(values), max(values)
    pad = max((hi / lo) ** 0.06, 1.04)
    lo, hi = lo / pad, hi * pad
    return (lambda v: start + (end - start) * math.log(v / lo) / math.log(hi / lo)), log_ticks(lo, hi)


def decimals(ticks: Sequence[float]) -> int:
    return max((len(f"{t:g}".partition(".")[2]) for t in ticks if "e" not in f"{t:g}"), default=0)


def text_width(names: Sequence[str]) -> float:
    return min(6.9 * max((len(name) for name in names), default=0), 260.0) + 8


_Box = tuple[float, float, float, float]


class Mark(NamedTuple):
    """A mark at (x, y) with what is written beside it; ``needed`` even where it covers something."""

    name: str
    words: str
    x: float
    y: float
    needed: bool


def labels(marks: Sequence[Mark], area: _Box) -> list[Markup]:
    """Names beside their marks, each at the first of eight places that overlaps neither a mark nor an earlier name."""
    taken: list[_Box] = [(m.x - 7, m.y - 7, m.x + 7, m.y + 7) for m in marks]
    drawn = []
    for name, words, x, y, needed in sorted(marks, key=lambda mark: (not mark.needed, mark.y, mark.x, mark.name)):
        width = 6.6 * len(words) + 2
        places = [
            (10, 4),
            (-10 - width, 4),
            (10, -9),
            (10, 17),
            (-10 - width, -9),
            (-10 - width, 17),
            (-width / 2, -13),
            (-width / 2, 21),
        ]
        boxes = [(x + dx, y + dy - 11, x + dx + width, y + dy + 3) for dx, dy in places]
        free = [box for box in boxes if _inside(box, area)] or boxes
        covered, box = min((sum(_overlap(box, other) for other in taken), i, box) for i, box in enumerate(free))[::2]
        if covered and len(marks) >= FEW and not needed:
            continue
        taken.append(box)
        drawn.append(element("text", words, x=box[0], y=box[3] - 3, class_="lbl", data_method=name))
    return drawn


def _inside(box: _Box, area: _Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] + 20 and box[3] <= area[3]


def _overlap(a: _Box, b: _Box) -> float:
    if a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]:
        return 0.0
    return (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))


def critical_difference_diagram(key: str, found: CriticalDifference, *, title: str) -> Markup:
    """Methods at their mean ranks, best to the left; bars join those that Nemenyi's test does not separate."""
    half = (len(found.methods) + 1) // 2
    width, left, right = 760.0, 180.0, 580.0
    most = len(found.methods)
    axis, first = 58.0, 58.0 + 14 + 9 * len(found.bars)
    height = first + 22 * half + 16

    def x_of(rank: float) -> float:
        return left + (right - left) * (rank - 1) / max(most - 1, 1)

    parts = [line(left, axis, right, axis, "axis")]
    for rank in range(1, most + 1):
        parts += [
            line(x_of(rank), axis - 5, x_of(rank), axis, "axis"),
            text(x_of(rank), axis - 10, str(rank), "tick", "middle"),
        ]
    parts.append(line(left, 22, left + (x_of(2) - x_of(1)) * found.cd, 22, "ci thick sep"))
    parts.append(text(left, 14, f"critical difference {fixed(found.cd, 2)}, {found.tasks} tasks", "tick"))
    places = dict(zip(found.methods, found.ranks, strict=True))
    for i, names in enumerate(found.bars):
        y = axis + 10 + 9 * i
        parts.append(line(x_of(places[names[0]]) - 4, y, x_of(places[names[-1]]) + 4, y, "ci thick"))
    for i, (name, mean) in enumerate(places.items()):
        start = i < half
        y = first + 22 * (i if start else len(found.methods) - 1 - i) + 12
        end = left - 10 if start else right + 10
        path = f"M{number(x_of(mean))} {number(axis)}V{number(y)}H{number(end)}"
        parts.append(element("path", d=path, class_="leader"))
        parts.append(
            text(end + (-6 if start else 6), y + 4, f"{name} {fixed(mean, 2)}", "lbl", "end" if start else "start")
        )
    about = (
        f"Mean ranks of {most} methods over {found.tasks} tasks; the numbers are in the table of secondary statistics."
    )
    return figure(width, height, key, title, about, parts, "cd")
