"""Terminal, board and exports say one thing of a cell: cost, pairs, intervals, marks, and whose records they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recipes import TEACHER, plain, protocol, tuned

from kdbench.leaderboard import build
from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.records import files as records
from kdbench.results import cells as summary
from kdbench.results import chance
from kdbench.specs import registry

pytestmark = pytest.mark.seam


def built(tmp_path: Path) -> dict[str, Any]:
    """The board of the records, with the cards and tasks that they name: its exported rows by method."""
    named = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    methods, tasks = {raw["method"]["name"] for raw in named}, {raw["task"]["name"] for raw in named}
    known = Catalogue(
        {name: ref for name, ref in registry.methods().items() if name in methods},
        {name: task for name, task in registry.tasks().items() if name in tasks},
    )
    build(tmp_path / "records", tmp_path / "site", catalogue=known)
    rows = json.loads((tmp_path / "site" / "data" / "leaderboard.json").read_text())["rows"]
    return {row["method"]: row for row in rows}


def task_page(tmp_path: Path, row: dict[str, Any]) -> str:
    name = f"{row['task']}@v{row['task_version']}.html".replace("/", "__")
    return (tmp_path / "site" / "tasks" / name).read_text()


def test_terminal_board_and_exports_have_one_cost(keep: Any, store: Any, tmp_path: Path, make_record: Any) -> None:
    """Hours are steps times the measured step time in all of them, and a reusable stage is no further student's."""
    gan = make_record()["stages"][0] | {
        "name": "gan", "ledger": "generator_train", "steps": 0, "device_h": 1.0, "basis": "cited", "reusable": True,
    }  # fmt: skip
    for seed in (0, 1):
        keep(seed=seed, **plain(ratio=1.01))
        keep(seed=seed, ratio=2.0, stages=[gan, *make_record()["stages"]])
    board = built(tmp_path)
    with store() as opened:
        shown = {row.method: row.totals for row in summary.rows(opened)}
    for method in ("plain", "kd"):
        there, here = board[method], shown[method]
        hours = (there["student_device_h"], there["recipe_device_h"], there["full_device_h"], there["cost_basis"])
        assert hours == (here.student_h, here.recipe_h, here.full_h, here.basis)
        assert there["recipe_ratio"] == here.ratio("recipe")
    assert board["plain"]["recipe_ratio"] == 1.0
    assert board["kd"]["recipe_device_h"] == pytest.approx(board["kd"]["student_device_h"] + 1.0)
    page = (tmp_path / "site" / "methods" / "kd.html").read_text()
    assert ">1.00<" in page  # the GAN's line


def test_board_and_terminal_pair_the_same_runs(keep: Any, store: Any, tmp_path: Path) -> None:
    """dkd learnt from another teacher than kd: neither takes a difference, and both say why."""
    taught = [{**TEACHER, "weights_sha256": "b" * 64}]
    for seed in range(3):
        keep(protocol(), seed=seed, score=70.0 + seed)
        keep(protocol(), seed=seed, score=71.0 + seed, method__name="dkd", models__teachers=taught)
    with store() as opened:
        row = next(row for row in summary.rows(opened) if row.method == "dkd")
    assert row.to_baseline is None
    assert "no Δ to kd: another teacher" in row.remarks
    there = built(tmp_path)["dkd"]
    assert there["delta_baseline_mean"] is None
    assert "another teacher" in task_page(tmp_path, there)


@pytest.mark.parametrize(
    ("scores", "interval"),
    [((14.0, 54.0), (None, None)), ((94.0, 99.5, 97.0), (89.99, 100.0)), ((70.0, 71.0, 72.0), (68.52, 73.48))],
)
def test_intervals_end_where_the_metric_does(
    keep: Any, store: Any, tmp_path: Path, scores: tuple[float, ...], interval: Any
) -> None:
    for seed, score in enumerate(scores):
        keep(seed=seed, score=score)
    with store() as opened:
        (row,) = summary.rows(opened)
    board = built(tmp_path)["kd"]
    assert row.score is not None
    assert (row.score.lo, row.score.hi) == (board["lo"], board["hi"]) == pytest.approx(interval, abs=0.01)
    assert ("n too small" in row.remarks) == (interval[0] is None)


def test_a_score_at_chance_is_marked_on_terminal_and_board(keep: Any, store: Any, tmp_path: Path) -> None:
    for seed, score in enumerate((10.0, 9.0, 71.0)):
        keep(seed=seed, score=score, task__chance=10.0)
        keep(seed=seed, score=11.0, task__chance=10.0, method__name="x")
    with store() as opened:
        remarks = {row.method: row.remarks for row in summary.rows(opened)}
    assert "1 of 3 learned" in remarks["kd"]
    assert "0 of 3 learned" in remarks["x"]
    page = task_page(tmp_path, built(tmp_path)["kd"])
    assert "1 of 3 learned" in page


def test_a_record_without_its_chance_has_that_of_its_tasks_classes(make_record: Any) -> None:
    record = records.parse(make_record(task__name="digits/few-shot"))
    assert chance.level(record) == pytest.approx(10.0)
    assert chance.level(records.parse(make_record(task__name="not-registered"))) is None


def test_cells_of_a_task_without_a_file_search_no_folder(make_record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board of strangers' tasks asks this of every cell."""
    registry.task_files()
    monkeypatch.setattr(registry, "misnamed", lambda: pytest.fail("searched the folders of tasks"))
    assert chance.level(records.parse(make_record(task__name="not-registered"))) is None


def test_site_build_prefers_records_of_ones_own_and_says_whose_they_are(keep: Any, run: Any, tmp_path: Path) -> None:
    keep(**plain())
    keep(method__name="mine")  # no card of this name is installed
    code, out, _ = run("site", "build")
    assert code == 0
    assert f"the 2 records in {tmp_path / 'records'}" in out
    front = (tmp_path / "site" / "index.html").read_text()
    assert "Shown, not ranked" in front
    assert "methods/mine.html" in front


def test_the_board_says_what_was_overridden_and_takes_no_difference_of_a_run_to_itself(
    keep: Any, tmp_path: Path
) -> None:
    keep(score=75.0)
    keep(score=74.0, **tuned(10.0))
    keep(protocol(1), **plain(score=50.0, custom=True, provenance__command="kdbench evaluate train.epochs=1"))
    rows = built(tmp_path)
    assert rows["at"]["overrides"] == "method.attention_weight=10"
    assert (rows["at"]["delta_baseline_mean"], rows["plain"]["delta_plain_mean"]) == (-1.0, None)
    assert "custom settings: method.attention_weight=10" in task_page(tmp_path, rows["at"])
