"""The golden board, built once for all that read it."""

from __future__ import annotations

from typing import Any

import pytest
import site_samples as samples


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its pages, with a snapshot."""
    return samples.make_site(tmp_path_factory.mktemp("golden"), samples.golden(), snapshot="2026.11")
