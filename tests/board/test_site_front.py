"""The front page: suites in one table, then each with its answer, its ranking and what failed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import site_samples as samples

from kdbench.leaderboard.views.glance import glance
from kdbench.leaderboard.views.suite import by_answer

make_site, golden, record, cells, catalogue = (
    samples.make_site,
    samples.golden,
    samples.record,
    samples.cells,
    samples.catalogue,
)
DEVICE = "cpu-fp32-x1"


def test_a_suite_answers_first_which_methods_are_worth_their_cost(tmp_path: Path) -> None:
    page = make_site(tmp_path, samples.with_longer(kd=(84.0, 85.0, 86.0), alpha=(72.0, 73.5, 73.0))).page("index.html")
    sentence = (
        "Of 2 methods set against plain trained for as long as the method’s recipe takes, 1 beats it, 1 does worse, "
        "and 0 cannot be told from it."
    )
    assert sentence in page.text
    found = cells(page, f"suite-golden-{DEVICE}-answer", "matched", "delta", "words")
    assert list(found) == ["alpha", "kd"]
    assert found["alpha"][0].startswith("▲ better +9.17")
    assert found["alpha"][2] == "not told from kd at 1.50 times its cost; near the best"
    assert found["kd"][0].startswith("▼ worse −4.00")
    assert found["kd"][1:] == ["0 reference", "plain trained as long is better; could be the best"]
    assert page.text.index(sentence) < page.text.index("All 3 ranked methods")


def test_seeds_that_failed_stand_under_the_answer_and_lead_to_their_runs(tmp_path: Path) -> None:
    """Methods with such seeds are in no row of it: of a seed at chance, a seed that broke off, and no seed at all."""
    made = samples.with_longer(kd=(84.0, 85.0, 86.0), alpha=(72.0, 73.5, 73.0))
    made += [record("beta", "a", seed, score, task__chance=10.0) for seed, score in enumerate((10.0, 80.0, 82.0))]
    made += [record("gamma", "a", seed) for seed in range(3)]
    site = make_site(tmp_path, made, catalogue("plain", "kd", "alpha", "beta", "gamma"))
    index = site.page("index.html")
    (line,) = index.one("section", id=f"suite-golden-{DEVICE}").all("p", cls="failed")
    assert line.text == (
        "Seeds that failed: alpha (seed 2 failed on golden/b@v1 ), beta (2 of 3 learned on golden/a@v1 ), "
        "gamma (every seed failed on golden/a@v1 ). A method is not ranked on a task where a seed of it failed."
    )
    file, _, anchor = line.all("a")[1].attributes["href"].partition("#")
    assert site.page(file).one("tr", id=anchor).one("th").text
    assert site.page(line.all("a")[2].attributes["href"]).one("h1").text.startswith("gamma, seed ")
    for table in index.one("section", id=f"suite-golden-{DEVICE}").all("table"):
        assert not table.all(data_method="beta")


def test_suites_that_tell_more_of_the_question_come_first() -> None:
    few = SimpleNamespace(suite="few", told={"matched": {"kd": "better"}})
    silent, many = (
        SimpleNamespace(suite="a", told={}),
        SimpleNamespace(suite="many", told={"matched": dict.fromkeys("xyz")}),
    )
    beside = SimpleNamespace(suite="many", told={})
    suites: Any = [silent, few, many, beside]
    assert by_answer(suites) == [many, beside, few, silent]


def test_an_answer_without_failed_seeds_says_so(tmp_path: Path) -> None:
    longer = samples.with_longer(kd=(84.0, 85.0, 86.0))
    made = [raw for raw in longer if raw["task"]["name"] != "golden/b"]
    assert "No seed of any method failed." in make_site(tmp_path, made).page("index.html").text


def test_golden_suite(site: Any) -> None:
    """The set of tasks is the one that ranks most cells: three methods on one task, not one method on two."""
    page = site.page("index.html")
    found = cells(page, f"suite-golden-{DEVICE}-table", "rank", "delta", "recipe", "coverage")
    assert found == {
        "alpha": ["1–2 ≈ best", "not separated +1.00 [−1.48, +3.48]", "3.01 × [3.00, 3.02]", "1 / 2"],
        "kd": ["1–2 undecided", "0 reference", "2.00 × [2.00, 2.01]", "2 / 2"],
        "plain": ["3", "▼ worse −10.00 [−12.48, −7.52]", "1 × reference", "1 / 2"],
    }
    small = "on cpu/fp32/x1: small data (100 training rows), no evidence about sets as large as CIFAR or ImageNet"
    assert [h.text for h in page.all("h2")][:2] == [f"golden {small}", f"golden-angle {small}"]
    assert "no record has been verified" in page.text.lower()


def test_all_suites_stand_in_one_table_first(site: Any) -> None:
    page = site.page("index.html")
    lines = page.one("table", id="suites").one("tbody").all("tr")
    rows = [[cell.text for cell in (*line.all("th"), *line.all("td"))] for line in lines]
    assert rows == [
        ["golden on cpu/fp32/x1", "alpha, kd", "–", "0 of 2, kd", "3", "100"],
        ["golden-angle on cpu/fp32/x1", "alpha", "–", "1 of 1, plain", "2", "100"],
    ]
    sections = [line.one("th").one("a").attributes["href"].partition("#")[2] for line in lines]
    assert sections == [section.attributes["id"] for section in page.all("section", cls="suite")]


def test_a_line_of_many_names_the_first_and_counts_the_rest() -> None:
    rows = tuple(SimpleNamespace(method=name, best="undecided" * (name != "f")) for name in "abcdef")
    suite: Any = SimpleNamespace(
        suite="s", place="cpu", rows=rows, ties=SimpleNamespace(split=True), baseline="kd", all_tasks=(),
        told={
            "baseline": {"a": "better", "b": "worse"},
            "matched": {"a": "better", "b": "better", "c": "not separated"},
        },
    )  # fmt: skip
    (line,) = glance([SimpleNamespace(board=suite, key="k")]).rows  # type: ignore[list-item]
    assert line == (("s on cpu", "index.html#k"), "a, b, c, d and 1 more", "2 of 3", "1 of 2, kd", "6", "–")
    suite.ties.split = False
    (line,) = glance([SimpleNamespace(board=suite, key="k")]).rows  # type: ignore[list-item]
    assert line[1] == "no two are told apart"
    suite.rows = rows[:1]
    (line,) = glance([SimpleNamespace(board=suite, key="k")]).rows  # type: ignore[list-item]
    assert line[1] == "a"
