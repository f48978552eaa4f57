"""Figures of the board that are easy to get wrong unseen: one more student's cost, the cheapest step, signs in data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import records
from site_samples import Built, catalogue, cells, golden, make_site, record

from kdbench.stats.step_ratio import estimate_ratio

pytestmark = pytest.mark.seam

DEVICE = "cpu-fp32-x1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_site(tmp_path_factory.mktemp("golden"), golden())


def costs(site: Built, method: str) -> dict[str, str]:
    """Heads of the table of costs to the texts of a method's row; a head of two lines by its first."""
    for table in site.page("overhead.html").all("table"):
        heads = [head.text for head in table.one("thead").all("th")]
        for row in table.one("tbody").all("tr"):
            texts = [cell.text for cell in row.inside if not isinstance(cell, str)]
            if row.attributes.get("data-method") == method and len(texts) == len(heads):
                return dict(zip(heads, texts, strict=True))
    raise AssertionError(method)


def column(found: dict[str, str], head: str) -> float:
    (text,) = (text for name, text in found.items() if name.startswith(head))
    return float(text.split()[0])


def test_one_more_student_does_not_pay_for_what_students_share(tmp_path: Path, site: Any) -> None:
    """A stage that other students of the task reuse is in the recipe and not in the cost of one more of them."""
    raws = golden()
    for raw in raws:
        if raw["method"]["name"] == "kd" and raw["stages"]:
            own = raw["stages"][0]
            shared = {**own, "name": "generator", "ledger": "generator_train", "reusable": True, "steps": 9000}
            raw["stages"] = [{**shared, "device_h": 0.25}, own]
    found = costs(make_site(tmp_path, raws), "kd")
    student, recipe, full = (column(found, head) for head in ("One more student", "Recipe", "Full"))
    alone = column(costs(site, "kd"), "One more student")
    assert student == pytest.approx(alone)
    assert recipe > 100 * student
    assert full > recipe


def test_a_strangers_processor_ranks_and_its_costs_never_meet_the_others(tmp_path: Path) -> None:
    """Scores of a run with the published teacher are ranked wherever it ran, and the published baseline stays."""
    made = golden()
    for seed, score in enumerate((84.0, 86.0, 85.0)):
        raw = record("beta", "a", seed, score, ratio=1.5)
        raw["environment"]["cpu"] = "Another Processor"
        made.append(raw)
    site = make_site(tmp_path, made, catalogue("plain", "kd", "alpha", "beta"))
    page = site.page("tasks/golden__a@v1.html")
    ranks = cells(page, f"golden-a-v1-{DEVICE}-table", "rank", "step_ratio")
    assert {name: rank for name, (rank, _) in ranks.items()} == {
        "beta": "1",
        "alpha": "2–3",
        "kd": "2–3",
        "plain": "4",
    }
    assert "on Another Processor" in ranks["beta"][1]
    assert "best" not in ranks["beta"][1]
    timed = cells(page, f"golden-a-v1-{DEVICE}-table", "latency", "step_ms", "full")
    assert all("on Another Processor" in text for text in timed["beta"])
    assert not [text for name in ("plain", "kd", "alpha") for text in timed[name] if "Processor" in text]
    assert "best" in ranks["kd"][1]  # 2 against alpha's 3: the 1.5 of another processor is no rival
    for chart in ("pareto", "bars"):
        named = {
            node.attributes.get("data-method") or node.text for svg in page.all("svg", cls=chart) for node in svg.all()
        }
        assert "kd" in named
        assert "beta" not in named
    assert "beta" in page.all("svg", cls="forest")[0].text
    assert (
        "Costs measured on another processor than most, and left out of the charts: beta (Another Processor)."
        in page.text
    )
    suite = cells(site.page("index.html"), f"suite-golden-{DEVICE}-table", "recipe")
    assert suite["beta"] == ["– measured on Another Processor"]
    heads = [head.text for head in site.page("overhead.html").all("h2")]
    assert heads[:2] == ["cpu/fp32/x1, Another Processor", "cpu/fp32/x1, x86_64"]


def test_best_is_only_a_step_whose_interval_lies_below_all_others(tmp_path: Path) -> None:
    """An interval that another one reaches into is not below it, although the ratio itself is."""
    cheap = estimate_ratio(records.make_builds(2.0))
    rival = next(
        ratio
        for ratio in (2.0 + step / 1000 for step in range(200))
        if cheap.ratio < estimate_ratio(records.make_builds(ratio)).lo <= cheap.hi
    )
    ratios = {"plain": 1.0, "kd": 2.0, "alpha": rival}
    made = [record(method, "a", n, 80 + n, ratio=ratio) for method, ratio in ratios.items() for n in range(3)]
    page = make_site(tmp_path, made).page("tasks/golden__a@v1.html")
    steps = cells(page, f"golden-a-v1-{DEVICE}-table", "step_ratio")
    assert not [method for method, (text,) in steps.items() if "best" in text]  # golden's ratio of 3 leaves kd the best


def test_data_of_the_compare_page_turn_with_the_metric(site: Any) -> None:
    """Means worked out anew in the browser are of these: a greater number is better on every task."""
    page = site.page("compare.html")
    for suite, scores in (
        ("golden", {"plain": [70, 71, 72], "alpha": [81, 82, 83]}),
        ("golden-angle", {"plain": [-6, -7, -8], "alpha": [-5, -6.5, -7]}),
    ):
        rows = page.one("table", id=f"pairs-{suite}-{DEVICE}-s").one("tbody").all("tr")
        first = {row.attributes["data-method"]: row.all("td")[0].attributes.get("data-seeds") for row in rows}
        assert {name: [float(x) for x in first[name].split()] for name in scores} == scores
        deltas = page.one("table", id=f"pairs-{suite}-{DEVICE}-d").one("tbody").all("tr")
        (of_alpha,) = (row for row in deltas if row.attributes["data-method"] == "alpha")
        (told,) = (cell.one(cls="d").text for cell in of_alpha.all("td", data_col="plain"))
        shown = float(told.replace("−", "-"))
        means = {name: sum(values) / len(values) for name, values in scores.items()}
        assert shown == pytest.approx(means["alpha"] - means["plain"], abs=0.01)
