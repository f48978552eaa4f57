"""The golden board, built once for all that read it, and a browser that opens a board's files.

Tests in a browser are skipped where there is no Chromium (``apt-get install chromium-headless-shell``, or the one of
playwright).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import site_samples as samples

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The shell first: it starts in a fraction of the time, for it has no window's services."""
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Its pages, with a snapshot."""
    return samples.make_site(tmp_path_factory.mktemp("golden"), samples.golden(), snapshot="2026.11")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module, not of the session: while it is open, its event loop stands in the way of others."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium to test with: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board of :func:`site_samples.to_read`."""
    made, methods = samples.to_read()
    return samples.make_site(tmp_path_factory.mktemp("browser"), made, methods).out


@pytest.fixture
def visit(browser: Any, read: Path) -> Iterator[Any]:
    """Opens a page of the site in a window of its own; anything the page asks of a network fails the test."""
    contexts, asked, broken = [], [], []

    def go(path: str, *, width: int = 1280, theme: str = "light", script: bool = True, state: str = "") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda one: asked.append(one.url))
        page.on("pageerror", lambda one: broken.append(str(one)))
        page.on("console", lambda one: broken.append(one.text) if one.type in {"error", "warning"} else None)
        name = f"runs/{samples.golden()[0]['run_id']}.html" if path == "RUN" else path
        page.goto((read / name).as_uri() + state)
        return page

    yield go
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert broken == []
