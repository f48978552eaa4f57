"""What decides which cached teacher a run gets."""

from __future__ import annotations

from pathlib import Path

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
