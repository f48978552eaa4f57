"""What a page must be in a browser: by keyboard, without script, in both themes, on phones, printed, accessible.

axe-core comes with the package axe-playwright-python, without which its tests are skipped.
"""

from __future__ import annotations

from typing import Any

import pytest
from site_samples import TABLE, TASK

PAGES = [
    "index.html",
    TASK,
    "tasks/golden__angle@v1.html",
    "methods/kd.html",
    "overhead.html",
    "coverage.html",
    "compare.html",
    "methodology.html",
    "data.html",
    "submit.html",
    "changelog.html",
    "RUN",
]


def test_all_of_it_by_keyboard(visit: Any) -> None:
    page = visit(TASK)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached |= set(page.evaluate("[...document.activeElement.classList, document.activeElement.type || '']"))
        if page.evaluate("document.activeElement.matches('th.c-score button')"):
            break
    assert {"theme", "search", "scroll", "sort"} <= reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    assert page.locator(f"#{TABLE} th.c-score").get_attribute("aria-sort") == "ascending"
    page.locator(".tabs input").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".panel.p2").is_visible()
    assert not page.locator(".panel.p1").is_visible()


def test_everything_can_be_read_without_script(visit: Any) -> None:
    page = visit(TASK, script=False)
    assert page.locator(f"#{TABLE} thead th:visible").count() == page.locator(f"#{TABLE} thead th").count() == 24
    assert page.locator(".js-only:visible, .tools, button:visible").count() == 0
    assert page.locator(".panel.p1").is_visible()
    page.locator("label[for$=x2]").first.click()  # the other cost, by style sheet alone
    assert page.locator(".panel.p2").is_visible()
    assert visit("compare.html", script=False).locator(".deltas .d").first.is_visible()


def test_themes(visit: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit("index.html"), visit("index.html", theme="dark")
    assert (light.evaluate(ground), dark.evaluate(ground)) == ("rgb(253, 253, 251)", "rgb(21, 23, 26)")
    button = dark.locator("button.theme")
    assert button.inner_text() == "Theme: system"
    assert button.bounding_box()["y"] < dark.locator(".masthead nav").bounding_box()["y"] + 10  # one line of both
    button.click()
    assert (button.inner_text(), dark.evaluate(ground)) == ("Theme: light", "rgb(253, 253, 251)")
    dark.reload()
    assert dark.evaluate(ground) == "rgb(253, 253, 251)"


@pytest.mark.parametrize("script", [True, False])
def test_a_narrow_phone_never_scrolls_sideways(visit: Any, script: bool) -> None:
    for path in PAGES:
        page = visit(path, width=320, script=script)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path


@pytest.mark.parametrize("width", [390, 1280])
def test_what_a_charts_marks_mean_stands_beside_it_and_on_phones_behind_a_click(visit: Any, width: int) -> None:
    page = visit(TASK, width=width)
    figure = page.locator("figure.panel.p1")
    words = figure.locator("figcaption ul.shapes")
    assert words.is_visible() == (width > 640)
    if width < 640:
        figure.locator("summary").click()
        assert words.is_visible()
        page.set_viewport_size({"width": 1280, "height": 900})
        words.wait_for()
    assert not figure.locator("summary").is_visible()


def test_names_stay_whole_on_a_phone(visit: Any) -> None:
    for path in ("overhead.html", "coverage.html", "compare.html", TASK):
        page = visit(path, width=390)
        broken = page.locator(".c-method a:visible").evaluate_all(
            "all => all.filter(x => x.getClientRects().length > 1).map(x => x.textContent)"
        )
        assert broken == [], path


@pytest.mark.parametrize(("width", "way"), [(1280, "fits"), (390, "tall")])
def test_heads_stay_in_sight_while_a_table_is_read(visit: Any, width: int, way: str) -> None:
    page = visit(TASK, width=width)
    page.set_viewport_size({"width": width, "height": 170})
    box = page.locator(f".scroll.{way}:has(#{TABLE})")
    box.wait_for(timeout=5000)
    tops = box.evaluate(
        "box => { const last = box.querySelector('tbody tr:last-child'); last.scrollIntoView({behavior: 'instant'});"
        "return [box.querySelector('thead th'), last].map(x => x.getBoundingClientRect().top); }"
    )
    assert -1 <= tops[0] <= tops[1] + 1
    page.emulate_media(media="print")
    style = "(x, [what, name]) => getComputedStyle(x.querySelector(what))[name]"
    assert box.evaluate("x => getComputedStyle(x).overflowY") == "visible"
    printed = {
        "thead": ("display", "table-header-group"),
        "thead th": ("position", "static"),
        ".sort": ("display", "contents"),
    }
    for what, (name, value) in printed.items():
        assert box.evaluate(style, [what, name]) == value


@pytest.mark.parametrize("path", PAGES)
def test_printed_pages_are_light_without_controls_and_within_the_paper(visit: Any, path: str) -> None:
    page = visit(path, theme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    turned = page.evaluate("getComputedStyle(document.body).page") == "turned"
    assert turned == (path == "overhead.html")
    room = 1031 if turned else 702  # A4 less its margins of 12 mm, in pixels
    page.set_viewport_size({"width": room, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= room
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 251)"
    assert (
        page.locator(
            "button:not(.sort):visible, input:not([type=radio]):visible, .js-only:visible, nav:visible"
        ).count()
        == 0
    )


def test_the_menu_of_columns_lies_over_the_table(visit: Any) -> None:
    page = visit(TASK)
    menu, tools = page.locator("details.menu").first, page.locator(".tools").first
    height = tools.bounding_box()["height"]
    menu.locator("summary").click()
    assert menu.locator(".choices").is_visible()
    assert tools.bounding_box()["height"] == height
    page.keyboard.press("Escape")
    assert not menu.locator(".choices").is_visible()
    menu.locator("summary").click()
    page.locator("h1").click()
    assert not menu.locator(".choices").is_visible()


def test_targets_are_large_enough(visit: Any) -> None:
    """WCAG 2.2, 2.5.8: controls are at least 24 by 24 pixels, or spaced so."""
    for path in ("index.html", TASK, "compare.html"):
        page = visit(path, width=390)
        page.eval_on_selector_all("details.whole", "all => all.forEach(one => { one.open = true; })")
        for summary in page.locator("details.menu summary").all():
            summary.click()
        controls = "button, select, input[type=search], .menu label, .choose label, .pick"
        small = page.locator(controls).evaluate_all(
            "all => all.map(x => [x.textContent, x.getBoundingClientRect()])"
            ".filter(([, box]) => box.height && (box.height < 24 || box.width < 24)).map(([text]) => text)"
        )
        assert small == [], path


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(visit: Any, path: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    for theme in ("light", "dark"):
        page = visit(path, theme=theme)
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        told = [
            (one["id"], node["html"][:160], node.get("failureSummary", "")) for one in found for node in one["nodes"]
        ]
        assert told == [], theme
