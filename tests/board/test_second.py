"""A task whose metric beside the primary one ranks too: both searches of a hashing task, and a teacher trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import site_samples as samples

from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.specs import registry

TABLE = "digits-hash-v1-cpu-fp32-x1-table"
SECOND = "map_teacher_database"


def hashed(method: str, scores: tuple[float, ...], others: tuple[float | None, ...]) -> list[dict[str, Any]]:
    """Records of `digits/hash`, their second metric left out where it is None."""
    facts = {
        "task__name": "digits/hash", "task__suite": "digits-hash", "task__kind": "hashing",
        "task__metric_primary": "map", "task__baseline": "plain",
    }  # fmt: skip
    made = []
    for seed, (score, other) in enumerate(zip(scores, others, strict=True)):
        raw = samples.record(method, "a", seed, score, **facts)
        raw["metrics"]["last"] = {"map": score} | ({} if other is None else {SECOND: other})
        made.append(raw)
    return made


def catalogue(*names: str) -> Catalogue:
    return Catalogue(samples.catalogue(*names).methods, {"digits/hash": registry.task("digits/hash")})


def test_both_searches_rank(tmp_path: Path) -> None:
    """By the own database alpha leads; by the teacher's kd does, and plain is near nothing."""
    made = [
        *hashed("plain", (70.0, 72.0, 71.0), (12.0, 13.0, 14.0)),
        *hashed("alpha", (90.0, 91.0, 92.0), (14.0, 12.0, 13.0)),
        *hashed("kd", (80.0, 82.0, 81.0), (60.0, 61.0, 62.0)),
    ]
    page = samples.make_site(tmp_path, made, catalogue("plain", "kd", "alpha")).page("tasks/digits__hash@v1.html")
    found = samples.cells(page, TABLE, "rank", f"also-{SECOND}", f"rank-{SECOND}")
    assert found == {
        "alpha": ["1", "13.00 ± 2.48 n = 3", "2–3"],
        "kd": ["2", "61.00 ± 2.48 n = 3", "1"],
        "plain": ["3", "13.00 ± 2.48 n = 3", "2–3"],
    }
    heads = page.one("table", id=TABLE).one("thead").text
    assert "mAP ↑" in heads
    assert "mAP (teacher) ↑" in heads
    assert "Rank by mAP (teacher)" in heads


def test_a_row_without_the_second_metric_has_no_second_rank(tmp_path: Path) -> None:
    made = [
        *hashed("plain", (70.0, 71.0, 72.0), (12.0, 13.0, None)),
        *hashed("kd", (75.0, 76.0, 77.0), (60.0, 61.0, 62.0)),
    ]
    page = samples.make_site(tmp_path, made, catalogue("plain", "kd")).page("tasks/digits__hash@v1.html")
    found = samples.cells(page, TABLE, "rank", f"also-{SECOND}", f"rank-{SECOND}")
    assert found["plain"][1:] == ["–", "–"]
    assert found["kd"][1:] == ["61.00 ± 2.48 n = 3", "1"]


def test_other_tasks_have_no_second_ranking(tmp_path: Path) -> None:
    page = samples.make_site(tmp_path, samples.golden()).page("tasks/golden__a@v1.html")
    assert "Rank by" not in page.one("table", id="golden-a-v1-cpu-fp32-x1-table").one("thead").text


def test_a_teacher_that_was_trained_on_has_both_scores(tmp_path: Path) -> None:
    """Before and after, and what it took; the row of the teacher beneath the table keeps the one of before."""
    made = [samples.record("kd", "a", seed, 80.0 + seed) for seed in range(3)]
    for seed in range(3):
        raw = samples.record("alpha", "a", seed, 81.0 + seed)
        raw["models"]["teachers"][0]["trained_metric"] = 97.5
        raw["stages"].append({**raw["stages"][0], "name": "smooth", "ledger": "teacher_train", "device_h": 0.5})
        made.append(raw)
    site = samples.make_site(tmp_path, made)
    page, table = site.page("tasks/golden__a@v1.html"), "golden-a-v1-cpu-fp32-x1-table"
    found = samples.cells(page, table, "teacher")
    assert found["kd"] == ["99.20"]
    (said,) = found["alpha"]
    assert said.startswith("99.20 → 97.50 trained on by the method: 0.0")  # as many steps as the student's, of a few ms
    assert said.endswith(" device-h")
    assert "99.20 one teacher for all seeds" in page.one("table", id=table).one("tfoot").text
    run = next(raw["run_id"] for raw in made if raw["method"]["name"] == "alpha")
    assert "99.20 → 97.50" in next(path for path in site.pages if run in path.name).read_text()


def test_sizes_of_objects_have_columns_without_ranks(tmp_path: Path) -> None:
    facts = {
        "task__name": "bccd/few-shot", "task__suite": "bccd", "task__kind": "detection", "task__metric_primary": "ap",
        "task__baseline": "plain",
    }  # fmt: skip
    made = []
    for seed, large in enumerate((30.0, 31.0, None)):  # one test set holds no large object
        raw = samples.record("plain", "a", seed, 20.0 + seed, **facts)
        raw["metrics"]["last"] = {"ap": 20.0 + seed} | ({} if large is None else {"ap_large": large})
        made.append(raw)
    known = Catalogue(samples.catalogue("plain").methods, {"bccd/few-shot": registry.task("bccd/few-shot")})
    page = samples.make_site(tmp_path, made, known).page("tasks/bccd__few-shot@v1.html")
    found = samples.cells(page, "bccd-few-shot-v1-cpu-fp32-x1-table", "also-ap_large", "also-ap_small")
    assert found == {"plain": ["30.50 n = 2", "–"]}
    assert "Rank by AP large" not in page.text
