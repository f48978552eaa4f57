"""Cells and boards hold one thing: rows of other data join no cell, move no row and pass no validator."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import records as factory
import site_samples as samples

from kdbench.index.store import Store
from kdbench.records import files as records
from kdbench.records.submit import bundle
from kdbench.records.validate import check_folder

SPLITS = ("train", "test")


def rows_of(name: str, digest: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "split": split, "n": 100, "sha256": digest * 64, "source": "folder:mnist"} for split in SPLITS
    ]


OWN, DAMAGED = rows_of("digits", "1"), rows_of("digits-other-deadbeef", "2")


def made(**fields: Any) -> dict[str, Any]:
    raw = factory.make_record(**{"task__data": OWN, **fields})
    raw["spec_hash"] = records.spec_hash(raw["provenance"]["config_resolved"])
    return raw


def identity(**changed: Any) -> dict[str, Any]:
    return {"code": {"kd": "1.0.0"}, "nets": {"resnet8x4": "1"}, "data": "d" * 64, "weights": {}, **changed}


def test_rows_of_a_damaged_copy_join_no_cell_and_give_no_difference(tmp_path: Path) -> None:
    for seed, data in enumerate((OWN, DAMAGED)):
        factory.write_records(
            tmp_path,
            made(seed=seed, task__data=data, task__ranked=data is OWN, score=13.5 - seed),
            made(method__name="plain", models__teachers=[], seed=seed, score=70.0),
        )
    with Store.memory(tmp_path) as store:
        cells = {cell["data"]: cell for cell in store.cells(method="kd")}
        assert {name: (cell["n"], cell["current"]) for name, cell in cells.items()} == {
            "digits": (1, True), "digits-other-deadbeef": (1, False),
        }  # fmt: skip
        assert [d["seed"] for d in store.deltas(method="kd", reference="plain")] == [0]
        store.export(tmp_path / "out")
    exported = {row["data"] for row in csv.DictReader((tmp_path / "out" / "runs.csv").open())}
    assert exported == {"digits", "digits-other-deadbeef"}


@pytest.mark.parametrize(
    ("changed", "cells"),
    [
        ({}, 1),
        ({"data": "e" * 64}, 2),  # seen otherwise: another normalisation, another size
        ({"code": {"kd": "1.0.0+0123456789abcdef"}}, 2),
        ({"nets": {"resnet8x4": "1+0123456789abcdef"}}, 2),
        ({"weights": {"pair.teachers.image.weights": "f" * 64}}, 2),
    ],
)
def test_seeds_of_one_identity_are_a_cell(tmp_path: Path, changed: dict[str, Any], cells: int) -> None:
    factory.write_records(tmp_path, made(seed=0, identity=identity()), made(seed=1, identity=identity(**changed)))
    with Store.memory(tmp_path) as store:
        assert len(store.cells()) == cells


def test_an_old_record_is_of_released_code(tmp_path: Path) -> None:
    edited = identity(code={"kd": "1.0.0+0123456789abcdef"})
    factory.write_records(tmp_path, made(seed=0), made(seed=1, identity=identity()), made(seed=2, identity=edited))
    with Store.memory(tmp_path) as store:
        assert sorted(cell["seeds"] for cell in store.cells()) == [[0, 1], [2]]


def test_the_validator_refuses_runs_on_other_data(tmp_path: Path) -> None:
    own = [made(seed=seed) for seed in range(3)]
    wrong = made(seed=7, task__data=DAMAGED, task__ranked=False, score=21.0)
    factory.write_records(tmp_path, *own, wrong)
    problems = [problem for problem in check_folder(tmp_path) if problem.level == "error"]
    assert [(Path(problem.file).stem, problem.field) for problem in problems] == [(wrong["run_id"], "task.data")]
    assert "is digits-other-deadbeef (22222222), most records of digits/few-shot@v1 are of digits (11111111)" in str(
        problems[0]
    )


def test_the_validator_refuses_a_run_of_another_standing(tmp_path: Path) -> None:
    own = [made(seed=seed) for seed in range(3)]
    factory.write_records(tmp_path, *own, made(seed=7, task__ranked=False))
    (problem,) = [problem for problem in check_folder(tmp_path) if problem.level == "error"]
    assert problem.field == "task.ranked"


def test_a_submission_leaves_out_other_data_and_a_plugins_uncommitted_code(tmp_path: Path) -> None:
    loose = {"name": "my-methods", "version": "1.2.0", "commit": None, "dirty": True}
    factory.write_records(
        tmp_path / "home",
        made(seed=0),
        made(seed=1, task__data=DAMAGED, task__ranked=False),
        made(seed=2, provenance__plugins=[loose]),
        made(seed=3, provenance__plugins=[{**loose, "dirty": False}]),
    )
    done = bundle([tmp_path / "home"], tmp_path / "results")
    assert len(done.added) == 2
    reasons = sorted(reason for _, reason in done.left_out)
    assert reasons[0].startswith("its data went by digits-other-deadbeef: nothing shows that they are those")
    assert reasons[1].startswith("made with code of the plug-in my-methods that was not committed")


def test_a_run_on_other_data_moves_no_row_of_the_board(tmp_path: Path) -> None:
    """A reader sees the row as it was, and the other one apart, with its reason."""
    three = [(70, 71, 72), (80, 82, 81), (88, 89, 87)]
    names = ("plain", "kd", "alpha")
    sound = [
        samples.record(name, "a", seed, score)
        for name, scores in zip(names, three, strict=True)
        for seed, score in enumerate(scores)
    ]
    other = samples.record("alpha", "a", 7, 21.0, task__ranked=False, task__data=DAMAGED)
    first = {**other, "run_id": "0" * 32, "created_at": "2020-01-02T03:04:05.678Z"}  # older than all others
    first["overhead"] = {**first["overhead"], "measured_by": first["run_id"]}
    page = {}
    for place, made_up in (("before", sound), ("after", [*sound, first])):
        site = samples.make_site(tmp_path / place, made_up, samples.catalogue(*names))
        page[place] = samples.cells(
            site.page("tasks/golden__a@v1.html"), "golden-a-v1-cpu-fp32-x1-table", "rank", "score"
        )
    assert page["before"] == page["after"]
    assert page["after"]["alpha"][1].startswith("88.00")
    text = (tmp_path / "after" / "site" / "tasks" / "golden__a@v1.html").read_text()
    assert "other data" in text or "superseded" in text
    board = (tmp_path / "after" / "site" / "data" / "leaderboard.csv").read_text()
    rows = [row for row in csv.DictReader(io.StringIO(board)) if row["method"] == "alpha"]
    assert {row["data"] for row in rows} >= {"digits-other-deadbeef"}
    assert json.dumps(sorted(row["n"] for row in rows)) == '["1", "3"]'
