"""What a reader does with the board in a browser: sort, filter, choose columns, follow numbers, export, compare."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typeset
from site_samples import TABLE, TASK, TWO

from kdbench.stats import paired_delta, pooled_delta


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
    stacked = "\\begin{tabular}[t]{@{}r@{}}+1.00\\\\{[}$-$1.48, +3.48]\\end{tabular}"
    assert f"alpha & 82.00 $\\pm$ 2.48 & {stacked}" in text
    assert all(
        line.endswith("\\\\\\addlinespace[3pt]") for line in text.splitlines() if line.startswith("1--2 & alpha")
    )
    assert text.isascii()
    assert "kdbench snapshot \\texttt{" + page.locator("meta[name=snapshot]").get_attribute("content") in text


def test_the_exported_table_compiles_and_fits_its_page(visit: Any, tmp_path: Path) -> None:
    for state in ("", f"#!{TABLE}.cols=rank,score,vs_baseline,vs_plain,step_ratio,memory,verified"):
        with (page := visit(TASK, state=state)).expect_download() as download:
            page.get_by_role("button", name="LaTeX").first.click()
        download.value.save_as(tmp_path / "view.tex")
        typeset.assert_fits(tmp_path / "view.tex", tmp_path)


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
