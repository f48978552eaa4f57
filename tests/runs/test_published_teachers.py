"""Teachers of the published records, taken into a home elsewhere; rows of another teacher beside the published ones."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.engine import teachers
from kdbench.engine.assemble import load_data
from kdbench.engine.place import RunPlace
from kdbench.index.store import Store
from kdbench.records.files import Record, read_text
from kdbench.records.folder import records_of
from kdbench.records.provenance import PUBLISHED
from kdbench.runs import published_teachers, run, verify
from kdbench.runs.request import Request
from kdbench.specs.config import run_config


def kd(home: Home) -> Record:
    config = run_config("kd", "digits/few-shot", smoke=True)
    return run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off"))


def of_nobody(record: Record) -> Record:
    """The record as if a teacher had taught it that is nowhere."""
    teacher = record.models.teachers[0].model_copy(update={"weights_sha256": "0" * 64})
    return record.model_copy(update={"models": record.models.model_copy(update={"teachers": (teacher,)})})


def test_a_published_teacher_is_taken_and_not_trained_again(tmp_path: Path) -> None:
    ours, theirs, folder = Home(tmp_path / "ours"), Home(tmp_path / "theirs"), tmp_path / "teachers"
    record = kd(ours)
    (place,) = published_teachers.publish(ours, [record], folder)
    assert published_teachers.publish(ours, [record], folder) == []  # it is there
    facts = place / published_teachers.FACTS
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"seconds": 12345.0}))  # so that it can be told apart
    assert published_teachers.take(theirs, folder) == 1
    assert published_teachers.take(theirs, folder) == 0
    (teacher,) = kd(theirs).models.teachers
    assert teacher.weights_sha256 == record.models.teachers[0].weights_sha256
    assert teacher.training is not None
    assert teacher.training.device_h == pytest.approx(12345.0 / 3600)


def marked(
    ours: Home, record: Record, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], Path, Callable[[Record, Home], None]]:
    """Publishes a record's teacher, told apart by its facts from one trained here; facts, place, and what takes it."""
    (place,) = published_teachers.publish(ours, [record], folder)
    facts = json.loads((place / published_teachers.FACTS).read_text()) | {"seconds": 12345.0}
    (place / published_teachers.FACTS).write_text(json.dumps(facts))
    take = functools.partial(published_teachers.take_named, folder=folder)
    monkeypatch.setattr(published_teachers, "take_named", take)
    return facts, place, take


def test_a_replay_takes_the_published_teacher_and_says_where_another_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, folder = Home(tmp_path / "ours"), Home(tmp_path / "theirs"), tmp_path / "teachers"
    record = kd(ours)
    facts, place, take = marked(ours, record, folder, monkeypatch)
    assert verify.replay(record, theirs, None, Progress.silent()).what == "the first losses are the same bits"
    assert json.loads((theirs.teachers / place.name / published_teachers.FACTS).read_text()) == facts
    other = of_nobody(record)
    take(other, Home(tmp_path / "third"))
    assert not (tmp_path / "third" / "teachers").exists()
    digest = record.digest.model_copy(update={"sha256": "0" * 64})
    found = verify.replay(other.model_copy(update={"digest": digest}), theirs, None, Progress.silent())
    assert not found.passed
    assert "taught by other weights than the record's: image; --out names the home that has them" in found.what


def test_a_run_again_takes_the_published_teacher_and_is_held_to_bits_only_where_that_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, folder = Home(tmp_path / "ours"), Home(tmp_path / "theirs"), tmp_path / "teachers"
    record = kd(ours)
    facts, place, _ = marked(ours, record, folder, monkeypatch)
    found = verify.rerun(record, None, [20.0, 50.0, 80.0], theirs, None, Progress.silent())
    assert (found.passed, found.what) == (True, "the weights are the same bits")
    assert json.loads((theirs.teachers / place.name / published_teachers.FACTS).read_text()) == facts
    found = verify.rerun(of_nobody(record), None, [20.0, 50.0, 80.0], theirs, None, Progress.silent())
    assert "taught by other weights than the record's: image" in found.what
    assert "prediction interval" in found.what


def test_what_cannot_be_taken_is_said(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "teachers"
    with pytest.raises(UserError, match="no teacher is published in"):
        published_teachers.take(home, folder)
    (place,) = published_teachers.publish(home, [kd(home)], folder)
    other = Home(tmp_path / "other")
    own = other.teachers / place.name
    shutil.copytree(place, own)
    (own / published_teachers.FACTS).write_text(json.dumps({"weights_sha256": "0" * 64}))
    with pytest.raises(UserError, match="holds a teacher trained here, with other weights"):
        published_teachers.take(other, folder)
    (place / published_teachers.WEIGHTS).write_bytes(b"something else")
    with pytest.raises(UserError, match="is not what its facts say"):
        published_teachers.take(Home(tmp_path / "third"), folder)


def test_a_newer_cell_of_another_teacher_supersedes_none(tmp_path: Path, make_record) -> None:
    """A stranger on another processor trains another teacher: both cells stand, the published one first."""
    folder = tmp_path / "records"
    folder.mkdir()
    for number, (teacher, day) in enumerate([("a", "01"), ("a", "01"), ("b", "09")]):
        raw = make_record(
            run_id=f"{number:032x}", seed=number % 2, method__name="kd", created_at=f"2026-01-{day}T00:00:00.000Z",
            finished_at=f"2026-01-{day}T01:00:00.000Z",
        )  # fmt: skip
        raw["models"]["teachers"][0]["weights_sha256"] = teacher * 64
        (folder / f"{raw['run_id']}.json").write_text(json.dumps(raw))
    with Store.memory(folder) as store:
        cells = store.cells(method="kd")
    assert {(cell["teacher_sha256"][0], cell["n"], cell["current"]) for cell in cells} == {
        ("a", 2, True),
        ("b", 1, True),
    }


def test_the_teachers_of_the_published_rows_are_those_that_this_code_asks_for(tmp_path: Path) -> None:
    """By the hash of what made them, and with the weights that the published records name."""
    home = Home(tmp_path)
    published_teachers.take(home)
    for task, method in (("digits/few-shot", "kd"), ("digits/profiles", "kd"), ("digits/angle", "rkd")):
        config = run_config(method, task)
        data = load_data(config, None, home, Progress.silent())
        place = RunPlace(torch.device("cpu"), home, None, tmp_path, Progress.silent())
        there = {path.name for path in home.teachers.iterdir()}
        facts = teachers.get(config, "image", data, place).facts
        assert {path.name for path in home.teachers.iterdir()} == there  # none was trained
        found = [json.loads(read_text(path)) for path in records_of(PUBLISHED / f"{task.replace('/', '__')}@v1")]
        own = [raw for raw in found if (raw["method"]["variant"] or raw["method"]["name"]) == method]
        named = {raw["models"]["teachers"][0]["weights_sha256"] for raw in own}
        assert named == {facts["weights_sha256"]}
