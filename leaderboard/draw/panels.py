"""Charts of several panels, one line a method in each: bars of costs, and differences on several test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from kdbench.leaderboard.draw.charts import Interval, decimals, linear_axis, shown, text_width
from kdbench.leaderboard.draw.numbers import signed, significant
from kdbench.leaderboard.draw.svg import element, figure, line, marker, text

Panel = tuple[str, Sequence[Interval | None]]
"""Heading and a value per method, None where it was not measured."""
_Drawn = Callable[[float, float, Panel], list[Markup]]
_ROW, _TOP, _GAP = 22.0, 34.0, 62.0


def bars(key: str, names: Sequence[str], panels: Sequence[Panel], *, title: str, narrow: bool = False) -> Markup:
    """Costs as multiples of plain's, one panel a cost, one bar a method; the line at 1 is plain.

    Panels stand side by side, on narrow drawings one below the other.
    """
    size = _size(names, len(panels), narrow)
    about = "Bars are multiples of the cost of plain training, the vertical line at 1. The table holds the numbers."

    def drawn(x: float, y0: float, panel: Panel) -> list[Markup]:
        return _bars(x, y0, size, panel)

    return _laid(key, names, panels, size, narrow, (10.0, title, about, "bars"), drawn)


def differences(
    key: str, names: Sequence[str], panels: Sequence[Panel], *, title: str, digits: int, narrow: bool = False
) -> Markup:
    """Differences to one reference on several test sets, a panel each on one scale; the line at 0 is the reference."""
    size = _size(names, len(panels), narrow)
    least, most = shown([one for _, values in panels for one in values if one is not None], 0.0)
    x_on, ticks = linear_axis([least, most], 0.0, size, 3)

    def drawn(x: float, y0: float, panel: Panel) -> list[Markup]:
        heading, values = panel
        floor = y0 + _TOP + _ROW * len(values)
        parts = [text(x, y0 + 16, heading, "axis-label")]
        parts += [line(x + x_on(t), y0 + _TOP - 6, x + x_on(t), floor, "zero" if t == 0 else "grid") for t in ticks]
        parts += [text(x + x_on(t), floor + 17, signed(t, decimals(ticks)), "tick", "middle") for t in ticks]
        for i, value in enumerate(values):
            y = y0 + _TOP + _ROW * (i + 0.5)
            if value is None:
                parts.append(text(x + 6, y + 4, "not measured", "tick"))
                continue
            mean, lo, hi = (x + x_on(min(max(end, least), most)) for end in value)
            parts += [line(lo, y, hi, y, "ci thick"), marker(mean, y, 1, "mark", 4.5)]
            parts.append(text(x + size + 6, y + 4, signed(value[0], digits), "num"))
        return parts

    about = "Seed-paired differences with 95 % intervals, a panel a test set, all on one scale. The table holds scores."
    return _laid(key, names, panels, size, narrow, (30.0, title, about, "bars"), drawn)


def _size(names: Sequence[str], count: int, narrow: bool) -> float:
    """Width of one panel."""
    return 190.0 if narrow else max(96.0, (820.0 - text_width(names) - 20.0) / count - _GAP)


def _laid(
    key: str,
    names: Sequence[str],
    panels: Sequence[Panel],
    size: float,
    narrow: bool,
    words: tuple[float, str, str, str],
    drawn: _Drawn,
) -> Markup:
    """Panels with the methods' names before them; ``words``: room below a panel, title, description and class."""
    foot, title, about, class_ = words
    left, block = text_width(names) + 20.0, _TOP + _ROW * len(names) + foot
    parts: list[Markup] = []
    for j, panel in enumerate(panels):
        x, y0 = (left, j * block) if narrow else (left + j * (size + _GAP), 0.0)
        if narrow or j == 0:
            parts += [
                text(left - 12, y0 + _TOP + _ROW * (i + 0.5) + 4, name, "lbl", "end") for i, name in enumerate(names)
            ]
        parts += drawn(x, y0, panel)
    width = left + (1 if narrow else len(panels)) * (size + _GAP)
    return figure(width, block * (len(panels) if narrow else 1), key, title, about, parts, class_)


def _bars(x: float, y0: float, size: float, panel: Panel) -> list[Markup]:
    heading, values = panel
    scale = size / max((v[2] for v in values if v is not None), default=1.0)
    parts = [text(x, y0 + 16, heading, "axis-label")]
    for i, value in enumerate(values):
        y = y0 + _TOP + _ROW * (i + 0.5)
        if value is None:
            parts.append(text(x + 6, y + 4, "not measured", "tick"))
            continue
        parts.append(element("rect", x=x, y=y - 6, width=max(value[0] * scale, 0.5), height=12.0, class_="bar"))
        if value[2] > value[1]:
            parts.append(line(x + value[1] * scale, y, x + value[2] * scale, y, "ci thick"))
        parts.append(text(x + value[2] * scale + 6, y + 4, f"{significant(value[0])} \u00d7", "num"))
    block = _TOP + _ROW * len(values) + 10.0
    parts.append(line(x, y0 + _TOP - 6, x, y0 + block - 8, "axis"))
    parts.append(line(x + scale, y0 + _TOP - 6, x + scale, y0 + block - 8, "zero"))
    return parts
