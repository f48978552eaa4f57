"""A search of hyper-parameters: the score against each setting, a panel a setting, the given value marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdbench.leaderboard.draw.charts import decimals, linear_axis, log_axis
from kdbench.leaderboard.draw.numbers import fixed, significant
from kdbench.leaderboard.draw.svg import element, figure, line, marker, text, tick_text

_SIZE, _HEIGHT, _LEFT, _TOP, _FOOT, _ACROSS = 210.0, 130.0, 52.0, 30.0, 46.0, 3


@dataclass(frozen=True)
class Setting:
    """A setting that was searched.

    Attributes:
        values: of the trials that have a score: numbers, or places among ``choices``.
        given: the value without a search, alike.
        log: the axis is of factors.
    """

    name: str
    values: tuple[float, ...]
    given: float
    log: bool = False
    choices: tuple[str, ...] = ()


def search_panels(
    key: str,
    settings: Sequence[Setting],
    scores: Sequence[float],
    best: int,
    *,
    title: str,
    label: str,
    digits: int,
    narrow: bool = False,
) -> Markup:
    """Scores of trials over each setting; the line is at the given value, the first of the trials has it.

    Args:
        scores: of the trials that have one, the first of them with the given values.
        best: which of them is the best.
        label: what the scores are.
    """  # fmt: skip
    across = 1 if narrow else min(_ACROSS, len(settings))
    block = _TOP + _HEIGHT + _FOOT
    y_on, ticks = linear_axis(list(scores), _HEIGHT, 0.0, 4)
    parts: list[Markup] = [text(4, 16, label, "axis-label")]
    for number, setting in enumerate(settings):
        x, y = _LEFT + (number % across) * (_SIZE + _LEFT), _TOP + (number // across) * block
        parts += [line(x, y + y_on(t), x + _SIZE, y + y_on(t), "grid") for t in ticks]
        parts += [text(x - 8, y + y_on(t) + 4, fixed(t, decimals(ticks)), "tick", "end") for t in ticks]
        parts += _panel(setting, scores, best, x, y, y_on, digits)
    rows = -(-len(settings) // across)
    about = (
        f"{len(scores)} trials over {', '.join(one.name for one in settings)}. Scores are of validation rows; the open "
        "mark and the line are the given values, the filled square is the best trial. The table holds the numbers."
    )
    return figure(across * (_SIZE + _LEFT) + 24, rows * block, key, title, about, parts, "search")


def _panel(
    setting: Setting,
    scores: Sequence[float],
    best: int,
    x: float,
    y: float,
    y_on: Callable[[float], float],
    digits: int,
) -> list[Markup]:
    everything = [*setting.values, setting.given]
    if setting.choices:
        x_on, _ = linear_axis([0.0, max(len(setting.choices) - 1.0, 1.0)], x, x + _SIZE)
        ticks = [(float(place), name) for place, name in enumerate(setting.choices)]
    else:
        x_on, at = (log_axis if setting.log else linear_axis)(everything, x, x + _SIZE)
        ticks = [(value, tick_text(value)) for value in at[:: max(1, -(-len(at) // 4))]]
    floor = y + _HEIGHT
    parts = [text(x_on(value), floor + 16, name, "tick", "middle") for value, name in ticks]
    parts.append(text(x + _SIZE / 2, floor + 34, setting.name, "axis-label", "middle"))
    parts.append(line(x_on(setting.given), y, x_on(setting.given), floor, "zero"))
    for number, (value, score) in enumerate(zip(setting.values, scores, strict=True)):
        role = "mark" if number == best else "mark baseline" if number == 0 else "mark g1"
        shown = setting.choices[int(value)] if setting.choices else significant(value)
        about = element("title", f"{setting.name} {shown}: {fixed(score, digits)}")
        mark = marker(x_on(value), y + y_on(score), 1 if number == best else 0, role, 5.5 if number == best else 4.5)
        parts.append(element("g", about, mark, class_="point"))
    return parts
