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


RESULTS = [
    (
        "energykd-heda", "92.60 ± 0.83", "5", "± 1.42", "99.12", "-7.33 ± 4.33", "+14.58 ± 3.67",
        "21.34 [20.36, 22.36] quick", "1.69", "25.43", "5.3 MiB", "1,017,664", "",
    ),
    (
        "kd", "26.47 ± 12.56", "5", "± 1.56", "99.12", "-60.83 ± 13.71", "-51.54 ± 12.80", "2.64 [2.60, 2.68]", "2.65",
        "24.21", "3.2 MiB", "0", "2 of 5 seeds at chance",
    ),
]  # fmt: skip


def results(width: int) -> str:
    made = tables.table("digits: top1, %", "method", *tables.RESULTS, weight=list(tables.RESULTS.values()))
    for row in RESULTS:
        made.add_row(*row)
    screen = Screen(file=io.StringIO(), width=width, highlight=False)
    screen.print(made)
    return screen.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "shown", "left"),
    [
        (80, (1, 6, 8), "no room for: n, test noise, its teacher, Δ baseline (95 % t), step time"),
        (120, (1, 2, 6, 7, 8, 9), "no room for: test noise, its teacher, Δ baseline (95 % t), peak memory"),
        (240, range(13), ""),
    ],
)
def test_results_are_one_table_of_the_most_telling_columns(width: int, shown: tuple[int, ...], left: str) -> None:
    text = results(width)
    assert max(map(len, text.splitlines())) <= width
    for row in RESULTS:
        line = next(line for line in text.splitlines() if line.split()[:1] == [row[0]])
        whole = " ".join(line.split())
        for place in shown:
            assert all(word in whole for word in row[place].split()[:3]), row[place]
        assert text.count(f" {row[0]} ") == 1
    assert "…" not in text
    assert (left in " ".join(text.split())) if left else "no room" not in text


@pytest.mark.parametrize("width", [30, 40])
def test_a_very_narrow_terminal_still_shows_the_score(width: int) -> None:
    text = results(width)
    assert "92.60 ± 0.83" in " ".join(text.split())
    assert "…" not in text
