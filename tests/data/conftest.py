"""What tests of data start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.data.decode.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A data folder and a cache, neither of them there yet."""
    return Place(tmp_path / "data", tmp_path / "cache")
