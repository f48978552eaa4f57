"""The primary metric of each class and on each test set from elsewhere: in the index, as tables, on a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import site_samples as samples

import kdbench
from kdbench.results.beside import OWN, Told, by_class, elsewhere


@pytest.fixture
def two_methods(keep: Any) -> None:
    for seed, (plain, kd) in enumerate([((10.0, 80.0), (13.0, 79.0)), ((12.0, 82.0), (14.0, 83.0))]):
        for name, (bolt, nut) in (("plain", plain), ("kd", kd)):
            own = {"bolt": bolt, "nut": nut, **({"<washer>": 5.0} if seed == 0 and name == "kd" else {})}
            teachers: dict[str, Any] = {"models__teachers": []} if name == "plain" else {}
            keep(seed=seed, method__name=name, metrics__classes=own, task__baseline="plain", **teachers)
    keep(seed=7, method__name="kd", task__name="other")


def test_the_index_has_a_line_a_run_and_class(two_methods: None, store: Any) -> None:
    with store() as index:
        found = index.query(
            "SELECT class, count(*) AS n, avg(value) AS mean FROM class_scores JOIN runs USING (run_id) "
            "WHERE method = 'kd' GROUP BY class ORDER BY class"
        )
        told = Told.classes(index)
    assert [(row["class"], row["n"], row["mean"]) for row in found] == [
        ("<washer>", 1, 5.0), ("bolt", 2, 13.5), ("nut", 2, 81.0)
    ]  # fmt: skip
    assert len(told.known) == 4
    assert len(told.partners) == 2


def test_means_and_pairs_of_a_class_are_those_of_seeds_that_hold_it(two_methods: None, store: Any) -> None:
    with store() as index:
        found = {row.method: own for row, own in by_class(index)}
        assert [row.method for row, _ in by_class(index, method="kd")] == ["kd"]
    washer, bolt, nut = found["kd"]
    assert (bolt.stat.mean, bolt.to_baseline.mean, bolt.to_baseline.n) == (13.5, 2.5, 2)
    assert (nut.stat.mean, nut.to_baseline.mean) == (81.0, 0.0)
    assert (washer.stat.n, washer.to_baseline) == (1, None)
    assert all(one.to_baseline is None for one in found["plain"])


def test_results_by_class_at_the_command_line(two_methods: None, run: Any) -> None:
    code, out, _ = run("results", "--classes", "--json")
    assert code == 0
    found = {(one["method"], one["class"]): one for one in json.loads(out)}
    assert found["kd", "bolt"]["to_baseline"]["mean"] == 2.5
    assert len(found) == 5
    code, out, _ = run("results", "--classes")
    assert "<washer>" in out
    code, _, err = run("results", "--classes", "--method", "at")
    assert code == 2
    assert "is told by class: AP and IoU are" in err


@pytest.fixture
def scored_elsewhere(keep: Any) -> None:
    """Of one seed of kd the rows are others: it was recorded first."""
    for seed, (plain, kd) in enumerate([(40.0, 50.0), (42.0, 53.0), (44.0, 55.0)]):
        for name, away in (("plain", plain), ("kd", kd)):
            stale = seed == 0 and name == "kd"
            one = {"value": away, "items": 50, "sha256": ("b" if stale else "a") * 64, "about": "rows of another place"}
            teachers: dict[str, Any] = {"models__teachers": []} if name == "plain" else {}
            keep(
                seed=seed, method__name=name, metrics__external={"far": one}, task__baseline="plain",
                created_at=f"2026-01-0{1 if stale else 2}T00:00:00Z", **teachers,
            )  # fmt: skip
    keep(seed=7, method__name="kd", task__name="other")


def test_scores_elsewhere_stand_behind_the_score_itself(scored_elsewhere: None, store: Any) -> None:
    with store() as index:
        found = {row.method: own for row, own in elsewhere(index)}
        (row,) = [row for row, _ in elsewhere(index, method="kd")]
    own, far = found["kd"]
    assert (own.name, own.stat, own.to_baseline) == (OWN, row.score, row.to_baseline)
    assert (far.name, far.stat.n, far.stat.mean) == ("far", 2, 54.0), "one seed saw other rows"
    assert (far.to_baseline.mean, far.to_baseline.n) == (11.0, 2)
    assert [(one.name, one.stat.n, one.to_baseline) for one in found["plain"]][1:] == [("far", 3, None)]


def test_tables_of_runs_have_a_column_a_test_set_from_elsewhere(scored_elsewhere: None, tmp_path: Path) -> None:
    runs = kdbench.results(out=tmp_path).runs
    held = {(run["method"], run["seed"]): run.get("elsewhere.far") for run in runs if run["task"] != "other"}
    assert held["plain", 1] == 42.0
    assert held["kd", 0] is None, "other rows"
    assert kdbench.results(out=tmp_path).to_arrow()["elsewhere.far"].null_count == 2


def test_results_elsewhere_at_the_command_line(scored_elsewhere: None, run: Any) -> None:
    code, out, _ = run("results", "--elsewhere", "--json")
    assert code == 0
    assert {(one["method"], one["set"]): one["n"] for one in json.loads(out)} == {
        ("kd", OWN): 3, ("kd", "far"): 2, ("plain", OWN): 3, ("plain", "far"): 3
    }  # fmt: skip
    code, out, _ = run("results", "--elsewhere")
    assert "on rows from elsewhere" in out
    code, _, err = run("results", "--elsewhere", "--task", "digits/hash")
    assert (code, "was scored elsewhere" in err) == (2, True)
    code, _, err = run("results", "--elsewhere", "--classes")
    assert (code, "give one" in err) == (2, True)


def test_a_tasks_page_has_a_table_of_classes_where_there_are_any(tmp_path: Path) -> None:
    golden = samples.golden()
    for made in golden:
        if made["task"]["name"] == "golden/a":
            made["metrics"]["classes"] = {"bolt": 20.0 + made["seed"], "<nut>": 70.0}
    site = samples.make_site(tmp_path, golden)
    page = (site.out / "tasks" / "golden__a@v1.html").read_text()
    assert page.count("<h3>By class</h3>") == page.count("&lt;nut&gt;</th>") > 0
    assert "-classes" not in (site.out / "tasks" / "golden__b@v1.html").read_text()
