"""The primary metric of each class: in the index, at the command line, on a task's page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import site_samples as samples

from kdbench.results.classes import Told, rows


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
        told = Told.of(index)
    assert [(row["class"], row["n"], row["mean"]) for row in found] == [
        ("<washer>", 1, 5.0), ("bolt", 2, 13.5), ("nut", 2, 81.0)
    ]  # fmt: skip
    assert len(told.known) == 4
    assert len(told.partners) == 2


def test_means_and_pairs_of_a_class_are_those_of_seeds_that_hold_it(two_methods: None, store: Any) -> None:
    with store() as index:
        found = {row.method: own for row, own in rows(index)}
        assert [row.method for row, _ in rows(index, method="kd")] == ["kd"]
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


def test_a_tasks_page_has_a_table_of_classes_where_there_are_any(tmp_path: Path) -> None:
    golden = samples.golden()
    for made in golden:
        if made["task"]["name"] == "golden/a":
            made["metrics"]["classes"] = {"bolt": 20.0 + made["seed"], "<nut>": 70.0}
    site = samples.make_site(tmp_path, golden)
    page = (site.out / "tasks" / "golden__a@v1.html").read_text()
    assert page.count("<h3>By class</h3>") == page.count("&lt;nut&gt;</th>") > 0
    assert "-classes" not in (site.out / "tasks" / "golden__b@v1.html").read_text()
