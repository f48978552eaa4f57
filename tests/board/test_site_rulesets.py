"""Results of published and of searched values side by side, and the picture of a search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import records as factory
import site_samples as samples
from entries import RATE_FOUND, an_entry

from kdbench.specs.tuned import Searched

PLACE = "cpu-fp32-x1"


def tuned(method: str, seed: int, score: float) -> dict[str, Any]:
    raw = samples.record(method, "a", seed, score, search=factory.make_search(), method__params_source="tuned")
    return raw | {"run_id": samples.run_id("tuned", method, seed), "overhead": {"mode": "off"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The golden set, kd and plain by a search of eight trials too, and the search of kd."""
    made = samples.golden()
    for seed in range(3):
        made += [tuned("kd", seed, 95.0 + seed), tuned("plain", seed, 85.0 + seed)]
    search = an_entry("kd", "digits/few-shot", {**RATE_FOUND, "method.temperature": 2.0}, (80.0, 85.25, None))
    known = replace(
        samples.catalogue("kd", "plain", "alpha"), searches=(search, an_entry("plain", search.task.name, {}))
    )
    return samples.make_site(tmp_path_factory.mktemp("rulesets"), made, known)


def test_each_ruleset_has_a_table_and_ranks_of_its_own(site: Any) -> None:
    page = site.page("tasks/golden__a@v1.html")
    found = samples.cells(page, f"golden-a-v1-{PLACE}--tuned-8-table", "rank", "vs_plain")
    assert found == {
        "kd": ["1–2", "+10.00 no spread over seeds"], "plain": ["1–2", "0 reference"],
    }  # fmt: skip
    assert "alpha" in samples.cells(page, f"golden-a-v1-{PLACE}-table", "rank")
    assert "Learning rate and hyper-parameters are those that a search of equal size found" in page.text


def test_the_rulesets_stand_side_by_side(site: Any) -> None:
    table = site.page("tasks/golden__a@v1.html").one("table", id=f"rulesets-{PLACE}")
    rows = [[cell.text for cell in (*row.all("th"), *row.all("td"))] for row in table.one("tbody").all("tr")]
    assert rows == [
        ["kd", "1–2", "81.00 ± 2.48, 3", "1–2", "96.00 ± 2.48, 3"],
        ["plain", "3", "71.00 ± 2.48, 3", "1–2", "86.00 ± 2.48, 3"],
    ]
    assert not site.page("tasks/golden__b@v1.html").all("table", id=f"rulesets-{PLACE}")


def test_every_number_of_the_rulesets_side_by_side_leads_to_its_own_runs(site: Any) -> None:
    table = site.page("tasks/golden__a@v1.html").one("table", id=f"rulesets-{PLACE}")
    for row in table.one("tbody").all("tr"):
        method = row.one("th").text
        searched = {samples.run_id("tuned", method, seed) for seed in range(3)}
        links = [cell.one("a").attributes["href"] for cell in row.all("td")]
        assert row.one("th").one("a").attributes["href"] == f"../methods/{method}.html"
        assert links[0] == links[1] != links[2] == links[3]
        for link, tuned_runs in zip(links[::2], (False, True), strict=True):
            page, _, anchor = link.removeprefix("../").partition("#")
            (line,) = site.page(page).all("tr", id=anchor)
            own = line.all("td")[2].one("a").attributes["href"]  # the score, behind device class and seed
            assert (own.split("/")[-1].removesuffix(".html") in searched) == tuned_runs


def test_the_front_page_says_which_suite_is_tuned(site: Any) -> None:
    page = site.page("index.html")
    section = page.one("section", id=f"suite-golden-{PLACE}--tuned-8")
    assert "golden on cpu/fp32/x1, tuned-8" in section.one("h2").text
    assert "without compute-matched plain" in section.text


def test_a_search_is_drawn_and_listed_on_its_methods_page(site: Any) -> None:
    page = site.page("methods/kd.html")
    table = page.one("table", id="search-digits-few-shot-v1-tuned-3")
    rows = [[cell.text for cell in (*row.all("th"), *row.all("td"))] for row in table.one("tbody").all("tr")]
    assert [row[0] for row in rows] == ["given", "1, best", "2"]
    assert rows[1][1:] == ["0.100", "2.00", "0.100", "0.900", "85.25"]
    assert rows[2][-1] == "–"
    drawing = page.all("svg", cls="search")[0]
    assert len(drawing.all("g")) == 2 * 4  # two trials with a score, in the panels of four settings
    assert (
        "3 trials, 0.0300 device-h, scored on training rows that the student did not see, seed 1000; 1 gave"
        in page.text
    )
    assert not site.page("methods/alpha.html").all("svg", cls="search")


def test_choices_have_places_and_what_was_cut_down_is_no_picture(tmp_path: Path) -> None:
    entry = an_entry("kd", "digits/few-shot", RATE_FOUND)
    trials = tuple(
        t.model_copy(update={"values": {"method.form": word}}) for t, word in zip(entry.trials, "ba", strict=True)
    )
    chosen = entry.model_copy(
        update={"searched": {"method.form": Searched(given="b", choices=("a", "c"))}, "trials": trials}
    )
    known = replace(samples.catalogue("kd"), searches=(chosen, entry.model_copy(update={"smoke": True})))
    page = samples.make_site(tmp_path, [samples.record("kd", "a", 0, 80.0)], known).page("methods/kd.html")
    (wide, _) = page.all("svg", cls="search")
    assert {"a", "b", "c"} <= {node.text for node in wide.all("text")}
