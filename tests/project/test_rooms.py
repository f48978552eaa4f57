"""Arrows between rooms go down only, in the order of the table in docs/architecture.md."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench.records.provenance import ROOT

ROWS = re.findall(r"^\| `([\w./]+)` \| [^|]+ \|$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
ORDER = {room: place for place, room in enumerate(ROWS)}
MAPPED = {"kdbench.methods": "methods", "kdbench.leaderboard": "leaderboard"}
"""Packages whose folders lie beside ``kdbench/``, see pyproject.toml."""
DATA = ("kdbench/data/decode", "kdbench/data/feed", "kdbench/data/sources", "kdbench/data")
WORK = ("models", "devices", "engine", "overhead", "runs", "checks", "sweep")
TRAINS = {*DATA, *(f"kdbench/{name}" for name in WORK)}
ONLY = {
    "kdbench/contract": {"kdbench/base"},
    "methods": {"kdbench/contract", "kdbench/base", "kdbench/models", "kdbench/data/feed"},
    **{room: set(ROWS) - TRAINS for room in ROWS if room.startswith("leaderboard")},
}
"""Rooms that import less than the order lets them."""
OFFERS = "kdbench/__init__.py"
"""What it names for scripts is imported when a script asks for it, and by nothing here."""


def room(file: str) -> str | None:
    """The room of a file: the longest line of the table that it lies beneath, None without one."""
    return max((one for one in ORDER if file == one or file.startswith(f"{one}/")), key=len, default=None)


@functools.cache
def modules() -> dict[str, str]:
    """Name of each module, as it is imported, to its file below the root."""
    found = {}
    for package, folder in {"kdbench": "kdbench", **MAPPED}.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found.setdefault(name, path.relative_to(ROOT).as_posix())
    return found


def imported(file: str) -> Iterator[str]:
    """Files of this tree that a file imports."""
    known = modules()
    if file == OFFERS:
        return
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            within = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [name if name in known else node.module or "" for name in within]
        yield from (known[name] for name in names if name in known)


@functools.cache
def arrows() -> dict[tuple[str, str], list[str]]:
    """(importing room, imported room) to the imports."""
    found = defaultdict(list)
    for file in modules().values():
        for other in imported(file):
            here, there = room(file), room(other)
            assert here is not None, f"{file} is in no room of docs/architecture.md"
            if there is not None and here != there:
                found[here, there].append(f"{file} imports {other}")
    return dict(found)


def test_every_file_has_a_room_and_every_room_a_file() -> None:
    rooms = {room(file) for file in modules().values()}
    assert rooms == set(ORDER)
    assert len(ROWS) == len(ORDER) > 30


def test_arrows_go_down_only() -> None:
    up = [line for (here, there), lines in arrows().items() if ORDER[there] >= ORDER[here] for line in lines]
    assert not up, "against the order of docs/architecture.md:\n" + "\n".join(up)


@pytest.mark.parametrize("narrow", ONLY)
def test_narrow_rooms_import_no_more_than_they_may(narrow: str) -> None:
    wide = [lines for (here, there), lines in arrows().items() if here == narrow and there not in ONLY[narrow]]
    assert not wide, "\n".join(line for lines in wide for line in lines)


def test_an_arrow_within_a_function_counts() -> None:
    assert "kdbench/runs/run.py" in set(imported("kdbench/runs/evaluate.py"))
    assert ("kdbench/cli", "leaderboard") in arrows()


def test_the_table_names_rooms_and_nothing_else() -> None:
    assert all((ROOT / Path(one)).exists() for one in ROWS)


def test_the_readme_names_every_room_that_is_a_folder() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    tops = {"/".join(Path(one).parts[:2]) for one in ROWS if one.startswith("kdbench/") and not one.endswith(".py")}
    assert not [top for top in sorted(tops) if f"`{top}" not in tree]
