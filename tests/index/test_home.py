"""The index as commands use it: what is left out of it is said, and what stands in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.index import home as index


@pytest.mark.parametrize("read_only", [False, True])
def test_records_that_are_left_out_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read_only: bool
) -> None:
    """Three by their names and the others by their number: of files cut off and of a newer kdbench."""
    index._say.cache_clear()  # a process says a line once
    home = Home(tmp_path)
    home.records.mkdir()
    names = [f"{number:032x}.json" for number in range(5)]
    for name in names:
        home.records.joinpath(name).write_text('{"schema_version": 1, "run_id')
    home.records.joinpath(names[0]).write_text('{"schema_version": 99}')
    monkeypatch.setattr(index.os, "access", lambda *of: not read_only)
    assert index.use(home, lambda store: store.runs()) == []
    *named, counted = capsys.readouterr().err.splitlines()
    assert all(name in line and line.endswith("left out") for name, line in zip(names[:3], named, strict=True))
    assert "newer" in named[0]
    assert "2 more" in counted


def test_a_folder_in_the_place_of_the_index_is_one_line(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.records.mkdir()
    home.index.mkdir()
    with pytest.raises(UserError, match="is a folder: move it away"):
        index.use(home, lambda store: store.runs())
