"""Training that starts from given weights: the student's, and a teacher's that is fine-tuned here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdbench import data, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.data import Place
from kdbench.engine import teachers
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.runs.as_record import _models
from kdbench.specs.config import RunConfig, run_config

torch.set_num_threads(1)


def file_of(folder: Path, net: str, outputs: int = 10, name: str = "given.safetensors") -> dict[str, torch.Tensor]:
    """Random weights in a file."""
    state = models.build(net, (1, 8, 8), outputs).state_dict()
    save_file(state, folder / name)
    return state


def prepared(home: Path, method: str, *overrides: str) -> tuple[RunConfig, Prepared]:
    config = run_config(method, "digits/few-shot", overrides, smoke=True)
    place = RunPlace(torch.device("cpu"), Home(home), None, home / "run")
    return config, prepare(config, 0, place, data.load(config.task.data, Place(None, home)).head(64))


def test_a_student_starts_from_given_weights_and_its_record_says_so(tmp_path: Path) -> None:
    state = file_of(tmp_path, "convnet_w2")
    config, found = prepared(tmp_path, "plain", f"pair.student.weights={tmp_path}/given.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in found.method.students[0].state_dict().items())
    student = _models(config, found, {})["student"]
    assert student["source"] == "given.safetensors"
    assert len(student["weights_sha256"]) == 64
    unset = _models(*prepared(tmp_path, "plain"), {})["student"]
    assert unset["source"] == "kdbench"
    assert "weights_sha256" not in unset


def test_peers_take_the_features_of_given_weights_and_differ_in_the_classifier(tmp_path: Path) -> None:
    state = file_of(tmp_path, "convnet_w2")
    _, found = prepared(tmp_path, "dml", f"pair.student.weights={tmp_path}/given.safetensors")
    first, second = (net.state_dict() for net in found.method.students)
    assert torch.equal(first["fc.weight"], state["fc.weight"])
    assert not torch.equal(second["fc.weight"], state["fc.weight"])
    body = [key for key in state if not key.startswith("fc.")]
    assert body
    assert all(torch.equal(first[key], second[key]) for key in body)


def test_features_for_other_classes_start_a_student_with_the_classifier_of_plain(tmp_path: Path) -> None:
    file_of(tmp_path, "convnet_w2", outputs=7)
    own = prepared(tmp_path, "plain")[1].method.students[0].state_dict()
    _, found = prepared(tmp_path, "plain", f"pair.student.weights='{tmp_path}/given.safetensors#features'")
    assert torch.equal(found.method.students[0].state_dict()["fc.weight"], own["fc.weight"])
    with pytest.raises(UserError, match=r"fc\.weight \(7, 8\) for \(10, 8\)"):
        prepared(tmp_path, "plain", f"pair.student.weights={tmp_path}/given.safetensors")


def test_a_teacher_is_fine_tuned_from_its_init(tmp_path: Path) -> None:
    state = file_of(tmp_path, "convnet_w32")
    config = run_config("kd", "digits/few-shot", [f"pair.teachers.image.init={tmp_path}/given.safetensors"], smoke=True)
    body = config.task.model_dump()
    body["pair"]["teachers"]["image"]["train"]["optimizer"] = {"name": "sgd", "lr": 1e-30}
    config, home = replace(config, task=type(config.task).model_validate(body)), Home(tmp_path)
    rows = data.load(config.task.data, Place(None, home.data)).head(64)
    found = teachers.get(config, "image", rows, RunPlace(torch.device("cpu"), home, None, home.runs))
    learnt = found.net.state_dict()
    assert all(torch.allclose(learnt[key], value) for key, value in state.items() if key.endswith(("weight", "bias")))
    assert found.facts["steps"] > 0
    assert sum(path.is_dir() for path in home.teachers.iterdir()) == 1
