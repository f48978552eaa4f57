"""Numbers as the board prints them: true minus signs, thin spaces, as many digits as mean something."""

from __future__ import annotations

import math

MINUS, THIN, TIMES = "\u2212", "\u2009", "\u00d7"
NONE = "\u2013"


def fixed(value: float, digits: int) -> str:
    """``-1.234`` with 2 digits is ``−1.23``; a value that rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int) -> str:
    """Like :func:`fixed`, with a plus sign."""
    text = fixed(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def significant(value: float, digits: int = 3) -> str:
    """Plain notation with ``digits`` significant digits; whole numbers above are kept whole, grouped by thousands."""
    if value == 0:
        return "0"
    text = f"{value:#.{digits}g}".removesuffix(".")
    if "e" in text:
        exponent = int(text.partition("e")[2])
        text = f"{value:,.0f}" if exponent > 0 else f"{value:.{digits - 1 - exponent}f}"
    return text.replace(",", THIN).replace("-", MINUS)


def si(value: float) -> str:
    """A count with a decimal prefix: ``264``, ``9.00 k``, ``1.23 M``."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{significant(value / factor)}{THIN}{prefix}"
    return significant(value) if value != int(value) else f"{int(value)}"


def times(value: float) -> str:
    """A ratio: ``2.00 ×``."""
    return f"{significant(value)}{THIN}{TIMES}"


def between(lo: float, hi: float, digits: int, *, sign: bool = False) -> str:
    """An interval, ``[−0.20, +1.40]`` with ``sign``."""
    show = signed if sign else fixed
    return f"[{show(lo, digits)}, {show(hi, digits)}]"


def plus_minus(mean: float, lo: float | None, hi: float | None, digits: int) -> str:
    """``87.30 ± 3.03``, ``98.90 [95.10, 100.00]`` where the interval is cut, or the mean alone without one."""
    if lo is None or hi is None:
        return fixed(mean, digits)
    if math.isclose(hi - mean, mean - lo, rel_tol=1e-6, abs_tol=1e-9):
        return f"{fixed(mean, digits)} ± {fixed(hi - mean, digits)}"
    return f"{fixed(mean, digits)} {between(lo, hi, digits)}"


def range_of(label: str) -> str:
    """``1-4`` with an en dash."""
    return label.replace("-", NONE)


def digits_for(unit: str, values: list[float]) -> int:
    """Decimals for scores of a task: 2 for percentages, else three significant digits of the smallest score."""
    smallest = min((abs(value) for value in values if value), default=1.0)
    return 2 if unit == "%" or smallest >= 1 else min(6, 2 - math.floor(math.log10(smallest)))
