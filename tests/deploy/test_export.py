"""Exported files: read again by themselves they answer as the network does, and one that does not is removed."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.deploy import export as exporting
from kdbench.deploy import load as loading
from kdbench.deploy.about import KEY, About, Scored
from kdbench.deploy.export import SHARE, allowed, export
from kdbench.deploy.formats import FORMATS, of_file

QUIET = Progress.silent()
PACKAGES = FORMATS["onnx"].needs


def exported(home, record, form, to, net="student"):
    return export(record.run_id, form, net, to, home, None, QUIET)


def need(form: str) -> None:
    for package in FORMATS[form].needs:
        pytest.importorskip(package, reason="needs the extra `export`")


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_answers_as_the_network_does_for_any_number_of_rows(home, kd, tmp_path, form):
    need(form)
    made = exported(home, kd, form, tmp_path / f"student{FORMATS[form].suffix}")
    assert made.score == pytest.approx(kd.metrics.last["top1"], abs=made.allowed)
    loaded = loading.load(kd, "student", home, None, QUIET)
    answers = FORMATS[form].read(made.path)
    for rows in (1, 2, 7):
        raw = loaded.test.x["image"][:rows]
        assert torch.allclose(answers(raw), loaded.module(raw), rtol=1e-4, atol=1e-5)


def test_what_a_file_says_of_itself(home, kd, tmp_path):
    tensors = exported(home, kd, "safetensors", tmp_path / "a.safetensors").path
    graph = exported(home, kd, "torch-export", tmp_path / "a.pt2").path
    with safe_open(tensors, "pt") as file:
        said = file.metadata()[KEY]
    with zipfile.ZipFile(graph) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f"extra/{KEY}"))
        assert archive.read(name).decode() == said
    about = About.model_validate_json(said)
    assert about.origin.run_id == kd.run_id
    assert about.answer.classes == tuple("0123456789")
    assert (about.raw.shape, about.raw.dtype) == ((1, 8, 8), "uint8")
    assert about.normalised.mean == (0.305,)
    assert about.scored.value == kd.metrics.last["top1"]


@pytest.mark.parametrize("form", ["safetensors", "torch-export"])
def test_a_regressions_file_answers_in_its_unit(home, angle, tmp_path, form):
    made = exported(home, angle, form, tmp_path / f"angle{FORMATS[form].suffix}")
    loaded = loading.load(angle, "student", home, None, QUIET)
    apart = (FORMATS[form].read(made.path)(loaded.test.x["image"]) - loaded.test.y).abs().mean().item()
    assert apart == pytest.approx(angle.metrics.last["mae"], rel=1e-4)


def test_a_teacher_is_exported_alike(home, kd, tmp_path):
    made = exported(home, kd, "safetensors", tmp_path / "teacher.safetensors", "teacher")
    assert made.score == pytest.approx(kd.models.teachers[0].val_metric)
    assert of_file(made.path).about.origin.net == "teacher:image"


def test_an_input_that_code_makes_goes_into_a_graph_alone(home, trained, tmp_path):
    record = trained("plain", "digits/profiles")
    with pytest.raises(UserError, match="onnx and torch-export hold what is computed"):
        exported(home, record, "safetensors", tmp_path / "a.safetensors")
    made = exported(home, record, "torch-export", tmp_path / "a.pt2")
    assert made.about.normalised.derived
    assert made.about.raw.name == "image"


def test_a_file_that_answers_otherwise_is_removed(home, kd, tmp_path, monkeypatch):
    def wrong(module):
        with torch.no_grad():
            state = {name: tensor.clone() for name, tensor in module.net.state_dict().items()}
            for parameter in module.net.parameters():
                parameter.add_(0.5)
            content = FORMATS["torch-export"].write(module)
            module.net.load_state_dict(state)
        return content

    broken = dataclasses.replace(FORMATS["safetensors"], write=wrong, read=FORMATS["torch-export"].read)
    monkeypatch.setitem(FORMATS, "safetensors", broken)
    with pytest.raises(UserError, match=r"answers differ from the network's .* removed"):
        exported(home, kd, "safetensors", tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_that_scores_otherwise_than_its_record_is_removed(home, kd, tmp_path):
    raw = json.loads((home.records / f"{kd.run_id}.json").read_text())
    raw["metrics"]["last"]["top1"] += 3
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / f"{kd.run_id}.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"the file scores .* its record says .* removed"):
        export(folder / f"{kd.run_id}.json", "safetensors", "student", tmp_path / "a.safetensors", home, None, QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_what_torch_cannot_write_is_said_in_a_line(home, kd, tmp_path, monkeypatch):
    def refuse(module):
        raise RuntimeError("Unsupported: this\nand more")

    monkeypatch.setitem(FORMATS, "torch-export", dataclasses.replace(FORMATS["torch-export"], write=refuse))
    with pytest.raises(UserError, match="torch cannot write this network as torch-export: Unsupported: this; try"):
        exported(home, kd, "torch-export", tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone(home, kd, tmp_path):
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        exported(home, kd, "torch-export", tmp_path / "a.pt2")
    with pytest.raises(UserError, match="a folder"):
        exported(home, kd, "torch-export", tmp_path)
    assert (tmp_path / "a.pt2").read_text() == "mine"


def test_absent_packages_are_named_before_anything_is_loaded(home, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], needs=("no_such_onnx",)))
    with pytest.raises(UserError, match=r"needs no_such_onnx: pip install 'kdbench\[export\]'"):
        export("no run", "onnx", "student", tmp_path / "a.onnx", home, None, QUIET)


def test_files_of_others_are_refused(home, kd, tmp_path):
    with pytest.raises(UserError, match="no file of `kdbench export`"):
        of_file(home.students / f"{kd.run_id}.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        of_file(tmp_path / "a.safetensors")


def test_how_far_a_score_may_lie_from_its_record():
    share = Scored(primary="top1", value=90.0, rows=50_000, unit="%")
    assert allowed(share) == pytest.approx(100 * SHARE, abs=1e-5)
    assert allowed(share.model_copy(update={"rows": 100})) == pytest.approx(1.0, abs=1e-5)  # one row
    assert allowed(share.model_copy(update={"bf16": True})) == pytest.approx(1.0, abs=1e-5)
    assert allowed(Scored(primary="mae", value=20.0, rows=100, unit="deg")) == pytest.approx(0.02)


@pytest.mark.parametrize("kind", ["detection", "instance_segmentation", "oriented"])
def test_graphs_of_detectors_are_refused_with_the_reason(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SimpleNamespace(kind=kind, metric_primary="ap")
    monkeypatch.setattr(exporting, "find", lambda run, home: SimpleNamespace(run_id="0123456789abcdef", task=task))
    with pytest.raises(UserError, match=rf"^0123456789ab: no graph holds a network of a {kind} task: its answers are"):
        exporting.export("0123", "torch-export", "student", None, Home(tmp_path), None, Progress.silent())
