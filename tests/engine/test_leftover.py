"""An epoch that ends in a batch of one row, and a net that cannot train on it: known before any epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks import check_task, tasks
from kdbench.engine.leftover import _next_to, is_lone
from kdbench.records.files import Record
from kdbench.runs.run import Request, run_seed
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec

SMALL = "pair.student.net=timm:test_resnet"  # its last map of an 8 x 8 picture is 1 x 1: batch norms need two rows


def ran(home: Path, method: str, *overrides: str, task: str = "digits/few-shot") -> Record:
    config = run_config(method, task, ["train.epochs=1", "pair.teachers.image.train.epochs=1", *overrides])
    return run_seed(Request(config, 0, torch.device("cpu"), Home(home), overhead="off"))


@pytest.mark.parametrize("method", ["plain", "kd"])
def test_it_is_said_before_any_epoch(method, tmp_path):
    with pytest.raises(UserError, match=r"100 rows in batches of 33 leave a last batch of 1 row.*train\.batch=32") as e:
        ran(tmp_path, method, SMALL, "train.batch=33")
    assert "\n" not in str(e.value)
    assert not list(tmp_path.glob("records/*"))
    assert not list(tmp_path.glob("teachers/*")), "a teacher was trained for it"
    (run,) = (folder for folder in (tmp_path / "runs").iterdir() if folder.is_dir())
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_batches_of_one_row_are_said(tmp_path):
    with pytest.raises(UserError, match=r"its batches hold 1 row.*set train\.batch=2"):
        ran(tmp_path, "plain", SMALL, "train.batch=1")


def test_nets_that_can_train_on_one_row_do(tmp_path):
    assert ran(tmp_path, "plain", "train.batch=33").status == "ok"


def test_trying_changes_no_bit(tmp_path, monkeypatch):
    tried = ran(tmp_path / "a", "plain", "train.batch=33")
    monkeypatch.setattr("kdbench.engine.leftover.require_trainable", lambda run: None)
    monkeypatch.setattr("kdbench.engine.assemble.rehearse", lambda *args: None)
    untried = ran(tmp_path / "b", "plain", "train.batch=33")
    assert tried.digest == untried.digest
    assert tried.deploy.export_sha256 == untried.deploy.export_sha256


def test_the_check_of_a_task_finds_it(tmp_path, monkeypatch):
    body = run_config("plain", "digits/few-shot", [SMALL, "train.batch=33"]).task.model_dump(mode="json")
    spec = TaskSpec.model_validate(body)
    monkeypatch.setattr("kdbench.specs.registry.task", lambda name: spec)
    monkeypatch.setattr(tasks, "trains", lambda *args: None)
    found = check_task("digits/few-shot", Home(tmp_path), None, Progress.silent())
    failed = {result.rule: result.message for result in found if result.outcome == "failed"}
    assert failed.keys() == {"batches"}
    assert "set train.batch=32" in failed["batches"]


@pytest.mark.parametrize(("rows", "batch", "near"), [(100, 33, 32), (640, 71, 70), (5, 2, 3), (3, 2, 3), (2, 1, 2)])
def test_the_nearest_size_leaves_no_lone_row(rows, batch, near):
    assert is_lone(rows, batch)
    assert _next_to(batch, rows) == near
    assert not is_lone(rows, near)
