"""The board in a real browser, opened as files: script, no script, keyboard, phones, both themes, accessibility.

Skipped where there is no Chromium (``apt-get install chromium``, or the one of playwright); axe-core comes with the
package axe-playwright-python, without which its tests are skipped.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import site_samples as samples

from kdbench.stats import paired_delta, pooled_delta

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TASK = "tasks/golden__a@v1.html"
TABLE = "golden-a-v1-cpu-fp32-x1-table"
TWO = {
    ("kd", "c"): (80.0, 82.0, 81.5), ("alpha", "c"): (81.0, 82.5, 83.5), ("plain", "c"): (70.0, 73.0, 71.0),
    ("kd", "d"): (60.0, 61.0, 63.0), ("alpha", "d"): (66.0, 65.0, 67.5), ("plain", "d"): (50.0, 52.0, 55.0),
}  # fmt: skip
"""A suite of two tasks, whose pairs have unequal spreads."""
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium to test with: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    made = samples.golden()
    match = {"method": "kd", "ratio": 2.5, "spec_hash": made[3]["spec_hash"]}
    made += [
        samples.record("plain", "a", s, 75.0 + s, method__variant="plain@kd", compute_match=match) for s in range(3)
    ]
    made += [
        samples.record(method, task, seed, score, task__suite="golden-two")
        for (method, task), scores in TWO.items()
        for seed, score in enumerate(scores)
    ]
    for raw in made:
        if raw["method"]["name"] == "plain":
            raw["method"]["needs"]["teachers"] = []
    cards = {
        "plain": samples.card("plain", family="reference", year=2014),
        "alpha": samples.card("alpha", family="feature"),
    }
    return samples.make_site(folder, made, samples.catalogue("kd", **cards)).out


@pytest.fixture
def visit(browser: Any, out: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
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
        page.goto((out / name).as_uri() + state)
        return page

    yield go
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert broken == []


def _methods(page: Any, table: str = TABLE) -> list[str]:
    return page.eval_on_selector_all(f"#{table} tbody tr:not([hidden])", "rows => rows.map(row => row.dataset.method)")


def test_sorting_and_its_address(visit: Any) -> None:
    page = visit(TASK)
    assert _methods(page) == ["alpha", "kd", "plain"]
    button = page.locator(f"#{TABLE} th.c-step_ratio button")
    button.click()
    assert _methods(page) == ["plain", "kd", "alpha"]
    assert page.locator(f"#{TABLE} th[aria-sort]").evaluate_all("all => all.map(x => [x.dataset.key, x.ariaSort])") == [
        ["step_ratio", "ascending"]
    ]
    button.click()
    assert _methods(page) == ["alpha", "kd", "plain"]
    again = visit(TASK, state=page.evaluate("location.hash"))
    assert again.locator(f"#{TABLE} th.c-step_ratio").get_attribute("aria-sort") == "descending"


def test_filter_tells_how_many_are_left(visit: Any) -> None:
    page = visit(TASK)
    page.locator(".tools input[type=search]").first.fill("kd")
    assert _methods(page) == ["kd"]
    assert page.locator(".tools .count").first.inner_text() == "1 of 3 rows"
    assert page.locator(".tools .count").first.get_attribute("aria-live") == "polite"
    assert _methods(visit(TASK, state=page.evaluate("location.hash"))) == ["kd"]


def test_rows_are_filtered_by_family_year_and_needs(visit: Any) -> None:
    page = visit(TASK)
    tools = page.locator(".tools").first
    tools.get_by_label("Any family").select_option("feature")
    assert _methods(page) == ["alpha"]
    tools.get_by_label("Any family").select_option("")
    tools.get_by_label("Any year").select_option("2020")
    assert _methods(page) == ["alpha", "kd"]
    tools.get_by_label("Any needs").select_option("no teacher")
    assert _methods(page) == []
    tools.get_by_label("Any year").select_option("")
    assert _methods(page) == ["plain"]
    assert _methods(visit(TASK, state=page.evaluate("location.hash"))) == ["plain"]


def test_numbers_lead_to_the_runs_behind_them(visit: Any) -> None:
    page = visit(TASK)
    row = page.locator(f"#{TABLE} tr[data-method=kd]")
    row.locator(".c-step_ratio a").click()
    assert page.locator("h1").inner_text().startswith("kd, seed ")
    page.go_back()
    row.locator(".c-score a.to").click()
    page.locator("#seeds tr:target").wait_for()
    page.locator("#seeds tr:target a.to").first.click()
    assert page.locator("h1").inner_text() == "kd, seed 0"


def test_rows_ticked_in_a_tasks_table_are_compared(visit: Any) -> None:
    page = visit(TASK)
    lead = page.locator(".lead-on")
    assert not lead.is_visible()
    for name in ("alpha", "kd"):
        page.locator(f"#{TABLE} tr[data-method={name}] .pick input").check()
    lead.click()
    said = "2 methods, 1 common task: golden/a@v1. alpha and kd are not told apart"
    page.locator("#pairs-golden-cpu-fp32-x1 .common").filter(has_text=said).wait_for()
    page.go_back()
    assert lead.inner_text() == "Compare 2 ticked"


def test_columns_are_chosen_and_kept(visit: Any) -> None:
    page = visit(TASK)
    shown = page.locator(f"#{TABLE} thead th:visible")
    assert shown.count() == 9
    page.locator("details.menu summary").first.click()
    page.get_by_role("checkbox", name="Deployed params").first.check()
    page.get_by_role("checkbox", name="Peak memory").first.uncheck()
    keys = "all => all.map(x => x.dataset.key)"
    expected = [
        "rank",
        "method",
        "score",
        "vs_baseline",
        "step_ratio",
        "flops",
        "train_only",
        "recipe",
        "deploy_params",
    ]
    assert shown.evaluate_all(keys) == expected
    again = visit(TASK, state=page.evaluate("location.hash"))
    assert again.locator(f"#{TABLE} thead th:visible").evaluate_all(keys) == expected


def test_the_view_is_exported_as_it_stands(visit: Any, tmp_path: Path) -> None:
    page = visit(TASK)
    page.locator(".tools input[type=search]").first.fill("alpha")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").first.click()
    download.value.save_as(tmp_path / "view.csv")
    lines = (tmp_path / "view.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["Method"] for row in rows] == ["alpha"]
    ends = ("", ": from", ": to")
    assert [rows[0][f"Rank{end}"] for end in ends] == ["1", "1", "2"]
    assert [float(rows[0][f"Δ to kd, pt{end}"]) for end in ends] == pytest.approx([1.0, -1.4841, 3.4841], abs=1e-3)
    with page.expect_download() as download:
        page.get_by_role("button", name="LaTeX").first.click()
    download.value.save_as(tmp_path / "view.tex")
    text = (tmp_path / "view.tex").read_text()
    assert "alpha & 82.00 $\\pm$ 2.48 & \\shortstack[r]{+1.00\\\\{[}$-$1.48, +3.48]}" in text
    assert text.isascii()
    assert "kdbench snapshot \\texttt{" + page.locator("meta[name=snapshot]").get_attribute("content") in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
def test_the_exported_table_compiles_and_fits_its_page(visit: Any, tmp_path: Path) -> None:
    for name, state in {
        "few": "",
        "many": f"#!{TABLE}.cols=rank,score,vs_baseline,vs_plain,step_ratio,memory,verified",
    }.items():
        with (page := visit(TASK, state=state)).expect_download() as download:
            page.get_by_role("button", name="LaTeX").first.click()
        download.value.save_as(tmp_path / "view.tex")
        used = "\\usepackage{booktabs,longtable,lscape}"
        (tmp_path / f"{name}.tex").write_text(
            f"\\documentclass{{article}}{used}\\begin{{document}}\\input{{view}}\\end{{document}}"
        )
        made = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stdout[-2000:]
        assert "Overfull" not in made.stdout


def test_chart_and_citations_follow_the_filter(visit: Any, tmp_path: Path) -> None:
    page = visit(TASK)
    page.locator(".tools input[type=search]").first.fill("alpha")
    assert set(page.locator(".wide .point:visible").evaluate_all("all => all.map(x => x.dataset.method)")) == {"alpha"}
    with page.expect_download() as download:
        page.locator(".panel.p1 button.svg").click()
    download.value.save_as(tmp_path / "chart.svg")
    drawing = ElementTree.parse(tmp_path / "chart.svg").getroot()
    assert [node.attrib["data-method"] for node in drawing.iter("{http://www.w3.org/2000/svg}g")] == ["alpha"]
    assert "rgb(" in (tmp_path / "chart.svg").read_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="BibTeX").first.click()
    download.value.save_as(tmp_path / "view.bib")
    assert (tmp_path / "view.bib").read_text().count("@article{") == 1


def test_a_method_lights_up_in_chart_and_table(visit: Any) -> None:
    page = visit(TASK)
    page.locator(f"#{TABLE} tr[data-method=kd]").hover()
    lit = page.locator(".wide .point.on")
    assert set(lit.evaluate_all("all => all.map(x => x.dataset.method)")) == {"kd"}
    assert page.locator(f"#{TABLE} tr.on").count() == 1


def test_comparison_works_out_the_common_tasks(visit: Any) -> None:
    page = visit("compare.html")
    section = page.locator("#pairs-golden-cpu-fp32-x1")
    assert "3 methods, 1 common task: golden/a@v1." in section.locator(".common").inner_text()
    section.get_by_role("checkbox", name="plain", exact=True).uncheck()
    cell = section.locator(".deltas tr[data-method=alpha] td[data-col=kd]")
    assert cell.locator(".d").inner_text() == "+1.00"
    assert section.locator(".deltas tbody tr:visible").count() == 2
    assert cell.locator(".sub").inner_text() == "[−1.48, +3.48]"
    assert section.locator(".deltas .sep:visible").count() == 0
    assert "alpha and kd are not told apart: +1.00 pt, 95 % interval −1.48 to +3.48." in section.inner_text()
    section.get_by_role("checkbox", name="alpha", exact=True).uncheck()
    assert "Choose two methods or more" in section.locator(".common").inner_text()
    again = visit("compare.html", state="#!pairs-golden-cpu-fp32-x1.m=alpha,kd")
    assert "2 methods, 1 common task" in again.locator("#pairs-golden-cpu-fp32-x1 .common").inner_text()


def test_a_ticked_pair_has_the_interval_that_python_works_out(visit: Any) -> None:
    """Over two tasks of unequal spread the degrees of freedom are no whole number."""
    pooled = pooled_delta(
        [paired_delta(dict(enumerate(TWO["alpha", task])), dict(enumerate(TWO["kd", task])), "max") for task in "cd"]
    )
    page = visit("compare.html")
    section = page.locator("#pairs-golden-two-cpu-fp32-x1")
    section.get_by_role("button", name="None").click()
    for name in ("alpha", "kd"):
        section.get_by_role("checkbox", name=name, exact=True).check()
    said = section.locator(".common").inner_text()
    assert pooled.lo is not None
    assert pooled.hi is not None
    assert pooled.lo > 0
    expected = f"alpha is better than kd by {pooled.mean:.2f} pt, 95 % interval {pooled.lo:+.2f} to {pooled.hi:+.2f}."
    assert said == f"2 methods, 2 common tasks: golden/c@v1, golden/d@v1. {expected}"
    worse = section.locator(".deltas tr[data-method=kd] td[data-col=alpha]")
    assert worse.locator(".sep.own").evaluate("x => getComputedStyle(x).color") == "rgb(156, 47, 34)"
    assert worse.inner_text().split() == [f"▼−{pooled.mean:.2f}", f"[−{pooled.hi:.2f},", f"−{pooled.lo:.2f}]"]


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


def test_a_touched_mark_says_its_name(visit: Any) -> None:
    page = visit(TASK, width=390)
    drawing = page.locator(".p1 .narrow svg.pareto")
    drawing.evaluate("svg => svg.querySelectorAll('text.lbl').forEach(one => one.remove())")
    drawing.locator("[data-method=alpha] .mark").click()
    page.locator("h1").click()  # the pointer is elsewhere
    assert drawing.locator("text.called").all_text_contents() == ["alpha"]
    drawing.locator("[data-method=alpha] .mark").click()
    page.locator("h1").click()
    assert drawing.locator("text.called").count() == 0


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
