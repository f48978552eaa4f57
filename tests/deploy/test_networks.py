"""A run's networks as modules: they answer what was scored, and what is not there is said in a line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import kdbench
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.data.sources import digits
from kdbench.deploy import load as loading
from kdbench.deploy.find import find
from kdbench.records.schema import Ensemble

QUIET = Progress.silent()


def correct(module, loaded) -> float:
    answers = module(loaded.test.x["image"])
    return 100 * (answers.argmax(1) == loaded.test.y).double().mean().item()


def test_the_student_answers_what_its_record_says(home, kd):
    loaded = loading.load(kd, "student", home, None, QUIET)
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert loaded.module.classes == tuple("0123456789")
    assert correct(loaded.module, loaded) == pytest.approx(kd.metrics.last["top1"], abs=1e-9)


def test_the_teacher_answers_what_its_record_says(home, kd):
    loaded = loading.load(kd, "teacher", home, None, QUIET)
    assert loaded.module.about.origin.net == "teacher:image"
    assert correct(loaded.module, loaded) == pytest.approx(kd.models.teachers[0].val_metric, abs=1e-9)


def test_a_regression_answers_in_the_tasks_unit(home, angle):
    loaded = loading.load(angle, "student", home, None, QUIET)
    apart = (loaded.module(loaded.test.x["image"]) - loaded.test.y).abs().double().mean().item()
    assert apart == pytest.approx(angle.metrics.last["mae"], rel=1e-6)
    assert loaded.module.classes == ()
    assert loaded.module.about.answer.unit == "°"


@pytest.mark.parametrize("method", ["simkd"])
def test_a_student_that_its_method_changed_is_put_together_by_it(home, trained, method):
    record = trained(method, "digits/few-shot")
    assert not record.deploy.equals_plain
    loaded = loading.load(record, "student", home, None, QUIET)
    assert not loaded.module.about.built_by_name
    assert correct(loaded.module, loaded) == pytest.approx(record.metrics.last["top1"], abs=1e-9)


def test_the_functions_of_the_package(home, kd, tmp_path):
    student = kdbench.load_student(kd.run_id[:8], out=home.root)
    pixels, _ = digits.images()
    Image.fromarray(pixels[1500]).save(tmp_path / "one.png")
    raw = student.read([tmp_path / "one.png"])
    assert torch.equal(raw, torch.from_numpy(pixels[1500])[None, None])
    assert student(raw).shape == (1, 10)
    mean, std = digits.NORMALISATION["image"]
    assert torch.allclose(student.prepare(raw), (raw / 255 - mean[0]) / std[0])
    teacher = kdbench.load_teacher(home.records / f"{kd.run_id}.json", "image", out=home.root)
    assert teacher.about.arch == kd.models.teachers[0].arch
    with pytest.raises(AttributeError, match="load_students"):
        _ = kdbench.load_students


def test_importing_the_package_loads_nothing_of_it():
    words = "import kdbench, sys; print([name for name in sys.modules if name.startswith(('kdbench.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_runs_are_found_by_id_beginning_and_file(home, kd, angle):
    for run in (kd.run_id, kd.run_id[:10], home.records / f"{kd.run_id}.json"):
        assert find(run, home).run_id == kd.run_id
    with pytest.raises(UserError, match=r"no runs in .* begin with 'zzz'"):
        find("zzz", home)
    shared = home.records / f"{kd.run_id[:31]}{'1' if kd.run_id[31] == '0' else '0'}.json"
    shared.write_text("{}")
    try:
        with pytest.raises(UserError, match=f"2 runs in .* begin with '{kd.run_id[:8]}'"):
            find(kd.run_id[:8], home)
    finally:
        shared.unlink()
    with pytest.raises(UserError, match="no such file"):
        find("./nothing.json", home)


def test_a_run_without_result_left_no_network(home, make_record, tmp_path):
    raw = make_record(
        status="oom", error={"type": "OutOfMemoryError", "message": "too large"}, metrics=None, deploy=None
    )
    path = tmp_path / f"{raw['run_id']}.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match="ended as oom: too large"):
        find(path, home)


def test_a_student_that_was_not_kept_is_made_again_by_the_command_in_the_line(home, kd, tmp_path):
    other = type(home)(tmp_path)
    with pytest.raises(UserError, match=r"not kept in .*kdbench evaluate --method kd .*--smoke --force"):
        loading.load(kd, "student", other, None, QUIET)
    with pytest.raises(UserError, match=r"teacher 'image' is not kept"):
        loading.load(kd, "teacher", other, None, QUIET)


def test_weights_that_are_not_the_records_are_refused(home, kd, tmp_path):
    other = type(home)(tmp_path)
    other.students.mkdir()
    tensors = load_file(home.students / f"{kd.run_id}.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other.students / f"{kd.run_id}.safetensors")
    with pytest.raises(UserError, match="not the weights that the record names"):
        loading.load(kd, "student", other, None, QUIET)
    shutil.copytree(home.teachers, other.teachers)
    for path in other.teachers.glob("*/weights.safetensors"):
        save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match="teacher 'image' is not kept"):
        loading.load(kd, "teacher", other, None, QUIET)


def test_other_rows_than_the_runs_are_refused(home, kd):
    identity = kd.identity.model_copy(update={"data": "0" * 64})
    with pytest.raises(UserError, match="are not the run's"):
        loading.load(kd.model_copy(update={"identity": identity}), "student", home, None, QUIET)


def test_teachers_that_cannot_be_meant_are_named(home, kd, angle):
    one = kd.models.teachers[0]
    two = kd.models.model_copy(update={"teachers": (one, one.model_copy(update={"role": "sound", "val_metric": None}))})
    several = kd.model_copy(update={"models": two})
    for record, net, line in (
        (angle, "teacher", "plain read no teacher"),
        (kd, "teachr", "name student or teacher:image"),
        (kd, "teacher:sound", "name student or teacher:image"),
        (several, "teacher", "2 teachers; name teacher:image or teacher:sound$"),
        (several, "teacher:sound", "only lends features"),
    ):
        with pytest.raises(UserError, match=line):
            loading.load(record, net, home, None, QUIET)
    ensemble = Ensemble(rule="mean", val_metric=50.0)
    together = kd.model_copy(update={"models": two.model_copy(update={"ensemble": ensemble})})
    with pytest.raises(UserError, match="their ensemble is no one network"):
        loading.load(together, "teacher", home, None, QUIET)


def test_data_described_beside_a_task_of_ones_own_ask_for_its_file(home, kd):
    protocol = {**kd.provenance.config_resolved["protocol"], "data": {"source": "figures"}}
    body = {**kd.provenance.config_resolved, "protocol": protocol}
    moved = kd.model_copy(update={"provenance": kd.provenance.model_copy(update={"config_resolved": body})})
    with pytest.raises(UserError, match=r"data set 'figures' is described beside a task of your own.*--local FILE"):
        loading.load(moved, "student", home, None, QUIET)


@pytest.mark.slow
def test_a_run_scored_on_validation_rows_is_scored_on_them_again(tmp_path):
    validation = {"data.validation.fraction": 0.2, "data.validation.seed": 0}
    done = kdbench.evaluate(
        "plain", "digits/few-shot", seeds=[0], smoke=True, overhead="off", device="cpu", out=tmp_path,
        overrides=validation,
    )  # fmt: skip
    (run,) = done.runs
    loaded = loading.load(find(run["run_id"], Home(tmp_path)), "student", Home(tmp_path), None, QUIET)
    assert correct(loaded.module, loaded) == pytest.approx(run["score"], abs=1e-9)
