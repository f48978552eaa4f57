"""Tables on narrow terminals: nothing of a number is ever cut, and nothing is lost."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from kdbench.terminal import tables
from kdbench.terminal.sheet import Screen

ROWS = [
    ("energykd-heda", "92.60 ± 0.83", "5", "+14.58 ± 3.67", "21.34 [20.36, 22.36] quick", "1,017,664", ""),
    (
        "kd",
        "87.30 ± 3.03",
        "5",
        "–",
        "1.89 [1.86, 1.92]",
        "35.1 MiB",
        "custom, not applicable: the teacher is too wide",
    ),
]
COLUMNS = (
    "method",
    ">score\n(95 % t)",
    ">n",
    ">Δ plain\n(95 % t)",
    ">step time\n× plain (95 %)",
    ">peak\nmemory",
    "remarks",
)


def printed(width: int, rows: list[tuple[str, ...]] = ROWS, encoding: str = "utf-8") -> str:
    made = tables.table("digits/few-shot@v1 on cpu/fp32/x1: top1, %", *COLUMNS)
    for row in rows:
        made.add_row(*row)
    raw = io.BytesIO()
    screen = Screen(file=io.TextIOWrapper(raw, encoding, errors="strict"), width=width, highlight=False)
    screen.print(made)
    screen.file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
def test_every_cell_is_whole_at_any_width(width):
    shown = printed(width)
    assert max(map(len, shown.splitlines())) <= width
    numbers = [cell for row in ROWS for cell in row[1:6]]
    if width < 60:  # the widest is broken between two numbers
        numbers = [word for cell in numbers for word in cell.split()]
    for cell in (*numbers, "energykd-heda", "kd", "digits/few-shot@v1"):
        assert cell in shown, f"{cell} at {width}"
    for word in ROWS[1][6].split():
        assert word in shown
    assert "…" not in shown


def test_what_fits_is_one_table_and_parts_repeat_the_names():
    assert printed(200).count("energykd-heda") == 1
    assert printed(80).count("energykd-heda") > 1


def test_a_column_without_a_value_takes_no_room_where_there_is_none():
    rows = [(*row[:6], "") for row in ROWS]
    assert "remarks" in printed(200, rows)
    assert "remarks" not in printed(80, rows)


@pytest.mark.parametrize("width", [16, 25])
def test_a_terminal_too_narrow_for_a_number_loses_no_digit(width):
    shown = printed(width)
    assert "…" not in shown
    digits = Counter(letter for row in ROWS for cell in row for letter in cell if letter.isdigit())
    found = Counter(letter for letter in shown if letter.isdigit())
    assert all(found[digit] >= count for digit, count in digits.items())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_signs_the_terminal_lacks_are_spelt_and_the_columns_stay_aligned(encoding):
    shown = printed(120, encoding=encoding)
    assert "delta plain" in shown if encoding == "ascii" else "plain" in shown
    first, second = (line for line in shown.splitlines() if "0.83" in line or "3.03" in line)
    assert first.index("5") == second.index("5") or first.find(" 5 ") == second.find(" 5 ")
