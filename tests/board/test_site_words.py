"""What pages say in words of numbers: verdicts, what costs go by, what does not carry over, what was not tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records
import site_samples as samples
from site_samples import cells, golden, make_site, record

DEVICE = "cpu-fp32-x1"


def answer(site: Any, *keys: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = cells(site.page("index.html"), f"suite-golden-{DEVICE}-answer", *keys)
    return found


def test_a_baseline_that_beats_longer_training_and_a_method_below_it_say_so(tmp_path: Path) -> None:
    longer = samples.with_longer(kd=(74.0, 75.0, 76.0), alpha=(70.0, 72.0, 71.0))
    made = [raw for raw in longer if raw["task"]["name"] != "golden/b"]
    for raw in made:
        if raw["method"]["name"] == "alpha" and raw["task"]["name"] == "golden/a":
            raw["metrics"]["last"]["top1"] -= 6
    said = answer(make_site(tmp_path, made), "words")
    assert said["kd"][0].startswith("better than plain trained as long")
    assert said["alpha"][0].startswith("5.00 under kd at 1.50 times its cost")


@pytest.fixture(scope="module")
def unsure(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The golden set where alpha's measurement did not converge and kd needs 65 times the operations of plain."""
    made = golden()
    for raw in made:
        if raw["method"]["name"] == "alpha" and raw["metrics"]:
            raw["overhead"]["converged"] = False
        if raw["method"]["name"] == "kd" and raw["metrics"]:
            raw["overhead"]["flops_fwd_bwd"] = 65 * raw["overhead"]["plain_flops_fwd_bwd"]
    return make_site(tmp_path_factory.mktemp("unsure"), made)


def test_a_cost_that_did_not_converge_is_marked_in_tables_and_charts(unsure: Any) -> None:
    page = unsure.page("tasks/golden__a@v1.html")
    steps = cells(page, f"golden-a-v1-{DEVICE}-table", "step_ratio")
    assert ["not converged" in text for (text,) in steps.values()] == [True, False, False]  # alpha, kd, plain
    overhead = unsure.page("overhead.html").text
    assert overhead.count("not converged") == 3  # on each of alpha's tasks
    for where in (page, unsure.page("index.html")):
        for svg in where.all("svg", cls="pareto"):
            (marked,) = svg.all(cls="loose")
            (point,) = [one for one in svg.all("g", cls="point") if one.all(cls="loose")]
            assert point.attributes["data-method"] == "alpha"
            assert "did not converge" in point.one("title").text
            assert marked.name in {"circle", "rect", "polygon"}
        assert "The measurement of a pale mark’s cost did not converge." in where.text
    assert "The measurement of alpha did not converge." in page.text  # below the bars


def test_ratios_of_launches_are_said_not_to_carry_over(unsure: Any, tmp_path: Path) -> None:
    said = "do not carry over to larger nets: kd needs 65.0 times the operations of plain and 2."
    for path in ("index.html", "overhead.html", "tasks/golden__a@v1.html"):
        assert said in unsure.page(path).text, path
    even = make_site(tmp_path, golden())  # 2.5 times the operations in twice the time
    assert not [path for path in even.pages if "carry over" in path.read_text()]


def test_hours_say_what_they_go_by(tmp_path: Path) -> None:
    made = golden()
    for raw in made:
        if raw["method"]["name"] == "kd" and raw["stages"]:
            own = raw["stages"][0]
            own["steps"] = 900_000  # an hour of measured steps
            memory = {**own, "name": "memory", "ledger": "teacher_cache", "steps": 0, "device_h": 0.5, "reusable": True}
            raw["stages"] = [own, memory]
        elif raw["method"]["name"] == "alpha" and raw["metrics"]:
            raw["overhead"] = {"mode": "off"}
    site = make_site(tmp_path, made)
    found = cells(site.page("tasks/golden__a@v1.html"), f"golden-a-v1-{DEVICE}-table", "recipe", "full")
    assert found["kd"][0].endswith("projected 33 % wall clock")
    assert found["kd"][1].endswith("projected 33 % wall clock teacher wall clock")
    assert [text.split()[-2:] for text in found["alpha"]] == [["wall", "clock"]] * 2
    lines = site.page("overhead.html").all("tr", data_method="alpha")
    assert lines
    assert all("wall clock" in line.text for line in lines)


def test_what_was_not_tuned_is_said_once_where_it_is_of_all_rows(tmp_path: Path) -> None:
    made = [record(m, "a", n, 80.0 + n, method__params_source="default") for m in ("kd", "alpha") for n in range(3)]
    page = make_site(tmp_path, made).page("tasks/golden__a@v1.html")
    assert cells(page, f"golden-a-v1-{DEVICE}-table", "method") == {"alpha": ["alpha"], "kd": ["kd baseline"]}
    assert page.text.count("No method was tuned here") == 1


def test_numbers_of_stages_and_totals_lead_to_the_run_that_they_are_of(unsure: Any) -> None:
    page = unsure.page("methods/alpha.html")
    for table in ("totals", "stages"):
        for row in page.one("table", id=table).one("tbody").all("tr"):
            links = [a.attributes["href"] for a in row.all("a")]
            assert links
            assert all((unsure.out / "methods" / link).resolve().is_file() for link in links)


def test_overhead_leaves_out_what_nobody_measured(unsure: Any) -> None:
    for table in unsure.page("overhead.html").all("table"):
        heads, rows = table.one("thead").all("th"), table.one("tbody").all("tr")
        numeric = [n for n, head in enumerate(heads) if "n" in head.attributes["class"].split()]
        columns = [[row.all("td")[n - 1].text for row in rows] for n in numeric]
        assert columns
        assert all(any(text != "–" for text in column) for column in columns)


def test_a_method_that_did_not_learn_by_published_values_says_so_beside_its_search(tmp_path: Path) -> None:
    made = golden()
    for seed, score in enumerate((10.0, 80.0, 82.0)):
        made.append(record("beta", "a", seed, score, task__chance=10.0))
    for name, score in (("beta", 88.0), ("plain", 80.0), ("kd", 85.0)):
        for seed in range(3):
            one = record(name, "a", seed, score + seed, search=records.make_search(), method__params_source="tuned")
            made.append(one | {"run_id": samples.run_id("tuned", name, seed), "overhead": {"mode": "off"}})
    known = samples.catalogue("plain", "kd", "alpha", "beta")
    page = make_site(tmp_path, made, known).page("tasks/golden__a@v1.html")
    (row,) = [row for row in page.one("table", id=f"rulesets-{DEVICE}").all("tr") if row.all("th")[0].text == "beta"]
    cells_of = row.all("td")
    assert [cell.text for cell in cells_of[:2]] == ["–", "a seed did not learn"]
    assert cells_of[1].one("a").attributes["href"].startswith("../methods/beta.html#cell-")
