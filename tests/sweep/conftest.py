"""The home of a test's sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.base.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
