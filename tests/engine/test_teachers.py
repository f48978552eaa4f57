"""What decides which cached teacher a run gets."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from kdbench import data
from kdbench.base.home import Home
from kdbench.engine import teachers
from kdbench.engine.place import RunPlace
from kdbench.specs.config import run_config

TASK = "digits/few-shot"


def teacher(home: Home, *overrides: str) -> teachers.TrainedTeacher:
    """The smoke-sized teacher of a task."""
    config = run_config("kd", TASK, overrides, smoke=True)
    rows = data.load(config.task.data, data.Place(None, home.data)).head(config.task.smoke.rows)
    return teachers.get(config, "image", rows, RunPlace(torch.device("cpu"), home, None, home.runs))


@pytest.mark.parametrize("facts", ["[]", "{}", '{"weights_sha256": "0"}', "half a"])
def test_one_with_facts_of_another_shape_is_set_aside_and_made_again(facts: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = teacher(home)
    ((folder, known),) = teachers.kept(home)
    assert known["weights_sha256"] == first.facts["weights_sha256"]
    (folder / teachers.FACTS).write_text(facts)
    assert teacher(home).facts["weights_sha256"] == first.facts["weights_sha256"]
    assert cached(home) == 2
    assert [path for path, _ in teachers.kept(home)] == [folder]


def test_one_that_was_set_aside_is_no_teacher_of_the_home(tmp_path: Path) -> None:
    """Its facts name weights that it does not hold."""
    home = Home(tmp_path)
    teacher(home)
    ((folder, known),) = teachers.kept(home)
    (folder / teachers.WEIGHTS).write_bytes(b"cut")
    teacher(home)
    assert len(list(home.teachers.glob(f"*/{teachers.FACTS}"))) == 2
    assert list(teachers.kept(home)) == [(folder, known | {"seconds": ANY, "curve": ANY})]


def cached(home: Home) -> int:
    return sum(path.is_dir() for path in home.teachers.iterdir())


def test_each_device_class_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights differ in their last bits and the seconds of the training mean another device."""
    home = Home(tmp_path)
    here = teacher(home)
    assert teacher(home).facts == here.facts
    assert cached(home) == 1
    monkeypatch.setattr(teachers, "device_class", lambda *_: "cuda:Other/fp32/x1")
    elsewhere = teacher(home)
    assert cached(home) == 2
    assert elsewhere.facts["seconds"] != here.facts["seconds"]


def test_what_belongs_to_the_student_leaves_the_teacher_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    teacher(home)
    teacher(home, "data.subset.per_class=5", "pair.student.net=convnet_w4", "train.epochs=9")
    assert cached(home) == 1
    teacher(home, "train.optimizer.lr=0.05")
    assert cached(home) == 2
