"""Charts say what the tables say, and their axes are where their numbers are."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from site_samples import card, catalogue, make_site, record

from kdbench.leaderboard.draw.charts import Point, pareto
from kdbench.stats import spearman

pytestmark = pytest.mark.seam


def test_the_forest_colours_what_the_arrows_mark(tmp_path: Path) -> None:
    """Of four methods one has an interval above 0 by itself (p = .03), which four questions at once do not tell."""
    scores = {
        "plain": (70, 71.5, 72),
        "kd": (80, 81, 82),
        "alpha": (81.0, 82.4, 83.9),
        "beta": (80.5, 80.6, 82.3),
        "gamma": (79.0, 82.0, 82.0),
    }
    made = [record(method, "a", seed, score) for method, found in scores.items() for seed, score in enumerate(found)]
    page = make_site(tmp_path, made, catalogue(*scores)).page("tasks/golden__a@v1.html")
    table = page.one("table", id="golden-a-v1-cpu-fp32-x1-table")
    arrows, marks = {}, {}
    for row in table.one("tbody").all("tr"):
        arrows[row.attributes["data-method"]] = next(
            c for c in row.all("td") if "c-vs_baseline" in c.attributes["class"]
        )
    drawing = next(svg for svg in page.all("svg", cls="forest"))
    for point in drawing.all("g", cls="point"):
        marks[point.attributes["data-method"]] = point.all(cls="mark")[0].attributes["class"].split()[1:]
    assert "[+0.31, +2.55]" in arrows["alpha"].text
    assert {name: cell.text[0] for name, cell in arrows.items() if name != "kd"} == {
        "plain": "▼", "alpha": "n", "beta": "n", "gamma": "n",
    }  # fmt: skip
    assert marks == {"plain": ["wor"], "alpha": [], "beta": [], "gamma": [], "kd": ["baseline"]}


def test_each_training_of_a_recipe_has_its_own_curve(tmp_path: Path) -> None:
    """Three networks one after the other: by epochs, by the steps of one epoch, by epochs again."""
    raw = record("kd", "a", 0, 80.0)
    places = [(1, 10), (2, 20), (0, 50), (0, 250), (1, 10), (2, 20)]
    raw["curve"] = [{**raw["curve"][0], "epoch": epoch, "step": step} for epoch, step in places]
    page = make_site(tmp_path, [raw]).page(f"runs/{raw['run_id']}.html")
    titles = [svg.one("title").text for svg in page.all("svg") if svg.one("title").text.startswith("training loss")]
    assert titles == [
        f"training loss by {axis}, training {n} of 3" for n, axis in enumerate(("epoch", "step", "epoch"), 1)
    ]


@pytest.mark.parametrize(
    ("venue", "first", "held"),
    [
        ("CVPR", "@inproceedings{", "booktitle"),
        ("A Journal", "@article{", "journal"),
        ("arXiv", "@misc{", "howpublished"),
    ],
)
def test_a_paper_is_cited_as_what_it_appeared_in(venue: str, first: str, held: str) -> None:
    entry = card("alpha", venue=venue).bibtex()
    assert entry.startswith(first)
    assert f"  {held} = {{{venue}}},\n" in entry


def test_ticks_beyond_the_drawn_range_stay_where_their_numbers_are() -> None:
    """The axis ends a little beyond the last mark; a tick there is not drawn at the mark."""
    points = [
        Point(name, (float(n), float(n), float(n)), (y, y, y), 0)
        for n, (name, y) in enumerate({"a": 1.8, "b": 0.0, "c": -4.3, "d": -5.57}.items(), 1)
    ]
    drawn = pareto("k", points, title="t", x_label="x", y_label="y", unit="pt")
    at = {
        float(word.replace("\u2212", "-")): float(y)
        for y, word in re.findall(r'<text x="49" y="([\d.]+)" class="tick" text-anchor="end">([^<]+)<', drawn)
    }
    assert set(at) == {2.0, 0.0, -2.0, -4.0, -6.0}
    assert at[0.0] - at[2.0] == pytest.approx(at[-6.0] - at[-4.0], abs=0.11)


def test_a_cross_has_an_arm_for_each_interval_there_is() -> None:
    flat, upright = (1.0, 1.0, 1.0), (2.0, 1.5, 2.5)
    points = [
        Point("neither", flat, flat, 0),
        Point("quality", flat, upright, 0),
        Point("both", (2.0, 1.9, 2.1), upright, 0),
    ]
    drawing = pareto("c", points, title="T", x_label="cost", y_label="Δ", unit="pt")
    arms = {
        name: re.sub(r"[-\d. ]+", "", "".join(re.findall(r'<path d="([^"]*)" class="ci"/>', group)))
        for name, group in re.findall(r'<g class="point" data-method="(\w+)">(.*?)</g>', drawing)
    }
    assert arms == {"neither": "", "quality": "MV", "both": "MHMV"}


def test_years_and_cautions_stand_on_the_board(tmp_path: Path) -> None:
    """Differences 10, 11 and 4 of papers of 2015, 2020 and 2012: later is better by rank alone."""
    scores = {"plain": (70, 71, 73), "kd": (76, 78, 77), "alpha": (77, 79, 78), "beta": (70, 72, 74.5)}
    made = [record(method, "a", seed, score) for method, found in scores.items() for seed, score in enumerate(found)]
    said = {"task": "golden/a", "text": "Its weight drowns the loss here."}
    answer = {"date": date(2026, 11, 30), "by": "A. Author", "text": "We agree."}
    cards = {
        "plain": card("plain", family="reference"),
        "kd": card("kd", year=2015),
        "alpha": card("alpha", year=2020, cautions=[said], responses=[answer]),
        "beta": card("beta", year=2012, cautions=[{**said, "method": "beta-other"}]),
    }
    for raw in made:
        raw["task"]["baseline"] = "plain"
    site = make_site(tmp_path, made, catalogue(**cards))
    index = site.page("index.html")
    drawing = index.all("svg", cls="years")[0]
    assert {point.attributes["data-method"] for point in drawing.all("g", cls="point")} == {"kd", "alpha", "beta"}
    assert "Spearman’s rank correlation of year and difference is +1.00." in index.text
    rows = site.page("tasks/golden__a@v1.html").one("table", id="golden-a-v1-cpu-fp32-x1-table").all("tr")
    told = {row.attributes["data-method"]: row.one("th").text for row in rows if row.attributes.get("data-method")}
    assert said["text"] in told["alpha"]
    assert said["text"] not in told["beta"]
    assert "We agree. A. Author, 2026-11-30" in site.page("methods/alpha.html").one("blockquote").text


def test_ranks_correlate_by_midranks() -> None:
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert spearman([1, 1, 2], [5, 6, 7]) == pytest.approx(0.8660254)
    assert spearman([1, 1, 1], [5, 6, 7]) is None
