"""Verification: what agrees passes, what was changed fails, and the record itself never changes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdbench import identity
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.devices.machine import environment
from kdbench.engine.teacher_ahead import TeacherAhead
from kdbench.records import files as records
from kdbench.runs import run, verify
from kdbench.runs.request import Request
from kdbench.specs.config import run_config

TASK = "digits/few-shot"
QUIET = Progress.silent()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("verify"))


@pytest.fixture(scope="module")
def record(home):
    config = run_config("kd", TASK, smoke=True)
    return run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off"))


def test_a_sound_record_is_valid(home, record):
    assert verify.validate(home.records / f"{record.run_id}.json").passed


def test_a_changed_score_of_the_specification_is_found(home, record, tmp_path):
    raw = json.loads((home.records / f"{record.run_id}.json").read_text())
    raw["method"]["params"]["temperature"] = 2.0
    path = tmp_path / f"{record.run_id}.json"
    path.write_text(json.dumps(raw))
    finding = verify.validate(path)
    assert not finding.passed
    assert "params" in finding.what or "spec" in finding.what


def test_replay_gives_the_same_bits(home, record):
    assert verify.replay(record, home, None, QUIET).what == "the first losses are the same bits"


def test_replay_asks_a_teacher_ahead_as_the_run_did(home, monkeypatch):
    config = run_config("kd", TASK, ["engine.teacher_ahead=4"], smoke=True)
    made = run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off"))
    assert (made.protocol.teacher_ahead, made.device_class) == (4, "cpu/fp32/x1/teacher-ahead-4")
    assert verify.validate(home.records / f"{made.run_id}.json").passed
    sizes, asked = [], TeacherAhead._asked
    monkeypatch.setattr(TeacherAhead, "_asked", lambda self, group: sizes.append(len(group.rows)) or asked(self, group))
    assert verify.replay(made, home, None, QUIET).what == "the first losses are the same bits"
    assert sizes
    assert made.digest.steps == sum(sizes)


def test_replay_finds_another_digest(home, record):
    digest = record.digest.model_copy(update={"sha256": "0" * 64})
    finding = verify.replay(record.model_copy(update={"digest": digest}), home, None, QUIET)
    assert not finding.passed


def test_rescore_of_the_saved_student(home, record, tmp_path):
    weights = home.students / f"{record.run_id}.safetensors"
    assert verify.rescore(record, weights, home, None, QUIET).passed
    tensors = load_file(weights)
    last = list(tensors)[-1]
    tensors[last] = tensors[last] + torch.randn_like(tensors[last]) * 10
    save_file(tensors, tmp_path / "other.safetensors")
    finding = verify.rescore(record, tmp_path / "other.safetensors", home, None, QUIET)
    assert not finding.passed
    assert finding.delta


def test_rerun_with_the_same_seed_gives_the_same_bits(home, record):
    finding = verify.rerun(record, None, [], home, None, QUIET)
    assert finding.passed, finding.what
    assert finding.run_id != record.run_id


def test_rerun_with_another_seed_is_held_against_the_prediction_interval(home, record):
    wide = verify.rerun(record, 1, [20.0, 50.0, 80.0], home, None, QUIET)
    assert wide.passed
    far = verify.rerun(record, 1, [99.0, 99.01, 99.02], home, None, QUIET)
    assert not far.passed
    with pytest.raises(UserError, match="more seeds"):
        verify.rerun(record, 1, [50.0], home, None, QUIET)


def test_a_cell_is_of_one_configuration_device_class_and_teacher(tmp_path, make_record):
    folder = tmp_path / "records"
    folder.mkdir()
    for number, (seed, score, teacher, device, day) in enumerate(
        [(0, 70.0, "a", "cpu", 1), (1, 71.0, "a", "cpu", 1), (1, 99.0, "a", "cpu", 2), (2, 10.0, "b", "cpu", 1),
         (3, 20.0, "a", "mps", 1)]
    ):  # fmt: skip
        raw = make_record(
            run_id=f"{number:032x}", seed=seed, score=score, method__name="kd", device_class=f"{device}/fp32/x1",
            created_at=f"2026-01-0{day}T00:00:00.000Z", finished_at=f"2026-01-0{day}T01:00:00.000Z",
        )  # fmt: skip
        raw["models"]["teachers"][0]["weights_sha256"] = teacher * 64
        (folder / f"{raw['run_id']}.json").write_text(json.dumps(raw))
    of = records.load(folder / f"{0:032x}.json")
    assert verify.cell_of(of, folder) == [70.0, 71.0]


def test_on_another_processor_the_prediction_interval_judges(home, record):
    """The same seed gives other bits there, which says nothing against the record."""
    stranger = record.environment.model_copy(update={"cpu": "Another Processor"})
    deploy = record.deploy.model_copy(update={"export_sha256": "0" * 64})
    digest = record.digest.model_copy(update={"sha256": "0" * 64})
    foreign = record.model_copy(update={"environment": stranger, "deploy": deploy, "digest": digest})
    finding = verify.rerun(foreign, None, [20.0, 50.0, 80.0], home, None, QUIET)
    assert (finding.level, finding.passed) == (3, True)
    assert "on another machine" in finding.what
    assert "the record is of Another Processor" in finding.what
    assert "prediction interval" in finding.what
    assert not verify.rerun(foreign, None, [99.0, 99.01, 99.02], home, None, QUIET).passed
    near = verify.replay(foreign, home, None, QUIET)
    assert near.passed
    assert not verify.replay(record.model_copy(update={"digest": digest}), home, None, QUIET).passed


def test_a_rerun_on_another_device_class_is_level_4_and_held_against_the_cell(home, record):
    elsewhere = record.model_copy(update={"device_class": "cuda:A100/fp32/x1"})
    finding = verify.rerun(elsewhere, None, [20.0, 50.0, 80.0], home, None, QUIET, "cpu")
    assert (finding.level, finding.passed) == (4, True)
    assert "from the cell's mean" in finding.what


def test_findings_go_into_a_side_file_and_the_record_stays(home, record):
    path = home.records / f"{record.run_id}.json"
    before = path.read_bytes()
    for level in (1, 2):
        verify.keep(record, [verify.Finding(level, True, "agrees")], home.records, "tester")
    assert path.read_bytes() == before
    side = records.load_side(home.records / "verifications" / f"{record.run_id}.json")
    assert [v.level for v in side.verifications] == [1, 2]


def test_differences_of_the_environment_are_named(record):
    here = environment(torch.device("cpu"))
    assert list(identity.differences(record, here)) == []
    told = list(identity.differences(record, {**here, "torch": "1.0"}))
    assert told == [f"torch was {here['torch']}, is 1.0"]


def test_a_record_of_another_configuration_is_refused(record):
    with pytest.raises(UserError, match="another configuration"):
        verify.config_of(record.model_copy(update={"spec_hash": "0" * 64}))
