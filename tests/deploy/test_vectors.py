"""Encoders and hashing nets leave like classifiers: their score searches the training rows, which come with the run."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.contract import Batch
from kdbench.data.sources import digits
from kdbench.deploy import load as loading
from kdbench.deploy.export import export
from kdbench.deploy.formats import FORMATS, of_file
from kdbench.deploy.predict import predict
from kdbench.deploy.score import score_folder
from kdbench.terminal import answers

QUIET = Progress.silent()
PIXELS, LABELS = digits.images()
VECTORS = [("digits/hash", "map", 16), ("digits/probe", "probe_few", 8), ("digits/masked", "probe_few", 32)]


def loaded_of(home, record, net="student"):
    return loading.load(record, net, home, None, QUIET)


@pytest.mark.parametrize(("task", "primary", "width"), VECTORS)
def test_a_file_scores_as_its_record_by_the_training_rows(home, trained, tmp_path, task, primary, width):
    record = trained("plain", task)
    made = export(record.run_id, "safetensors", "student", tmp_path / "a.safetensors", home, None, QUIET)
    assert (made.about.scored.primary, made.score) == (primary, pytest.approx(record.metrics.last[primary]))
    loaded = loaded_of(home, record)
    raw = loaded.test.x["image"][:3]
    assert of_file(made.path)(raw).shape == (3, width)
    assert torch.equal(of_file(made.path)(raw), loaded.module(raw))
    assert loaded.module.classes == ()


@pytest.mark.parametrize("form", ["torch-export", "onnx"])
@pytest.mark.parametrize("task", ["digits/hash", "digits/masked"])
def test_a_graph_gives_the_vectors(home, trained, tmp_path, task, form):
    for package in FORMATS[form].needs:
        pytest.importorskip(package, reason="needs the extra `export`")
    record = trained("plain", task)
    made = export(record.run_id, form, "student", tmp_path / f"a.{form}", home, None, QUIET)
    loaded = loaded_of(home, record)
    for rows in (1, 5):
        raw = loaded.test.x["image"][:rows]
        assert torch.allclose(FORMATS[form].read(made.path)(raw), loaded.module(raw), rtol=1e-4, atol=1e-5)


def test_an_encoder_gives_the_embedding_and_not_its_projection(home, trained):
    loaded = loaded_of(home, trained("plain", "digits/probe"))
    raw = loaded.test.x["image"][:4]
    out = loaded.module.net(Batch({"image": loaded.module.prepare(raw)}, torch.zeros(4), torch.arange(4)))
    assert torch.equal(loaded.module(raw), out.emb)
    assert out.logits.shape != out.emb.shape


def pictures(folder, numbers):
    files = []
    for number in numbers:
        files.append(folder / str(LABELS[number]) / f"{number}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(files[-1])
    return files


@pytest.mark.parametrize(("task", "primary", "width"), VECTORS)
def test_what_is_said_of_files(home, trained, tmp_path, task, primary, width):
    module = loaded_of(home, trained("plain", task)).module
    files = pictures(tmp_path, [1000, 1001])
    found = predict(module, files, QUIET)
    given = module(module.read(files))
    head, *lines = csv.reader(io.StringIO(answers.predictions_csv(module.about, found)))
    said = answers.predictions_json(module.about, found)
    shown = answers.predictions(module.about, found)
    assert (len(lines), shown.row_count, [one["file"] for one in said]) == (2, 2, [str(file) for file in files])
    if task == "digits/hash":
        bits = ["".join("1" if number >= 0 else "0" for number in row) for row in given.tolist()]
        assert (head, [line[1] for line in lines]) == (["file", "code"], bits)
        assert [one["code"] for one in said] == bits
        assert list(shown.columns[1].cells) == bits
        return
    assert head == ["file", *(f"e:{place}" for place in range(width))]
    assert torch.allclose(torch.tensor([[float(cell) for cell in line[1:]] for line in lines]), given, atol=1e-6)
    assert torch.equal(torch.tensor([one["embedding"] for one in said]), given)
    assert next(iter(shown.columns[1].cells)).endswith(f"({width})")


def test_a_folder_is_scored_by_searching_the_training_rows(home, trained, tmp_path):
    from kdbench.stats.retrieval import average_precisions, mean_of

    loaded = loaded_of(home, trained("plain", "digits/hash"))
    some = range(1000, 1030)
    pictures(tmp_path / "own", some)
    found = score_folder(loaded.module, tmp_path / "own", QUIET, loaded.searched)
    codes = [
        torch.where(loaded.module(raw) >= 0, 1, -1).to(torch.int8).numpy()
        for raw in (torch.from_numpy(PIXELS[some])[:, None], loaded.searched.x["image"])
    ]
    by_hand = 100 * mean_of(list(average_precisions(*codes, LABELS[some], loaded.searched.y.numpy(), None)))
    assert found.metrics == {"map": pytest.approx(by_hand)}
    assert sum(found.rows) == len(some)


def test_a_file_has_no_training_rows_to_search(home, trained, tmp_path):
    record = trained("plain", "digits/hash")
    made = export(record.run_id, "safetensors", "student", tmp_path / "a.safetensors", home, None, QUIET)
    pictures(tmp_path / "own", [1000])
    with pytest.raises(UserError, match="map searches the training rows, which no file holds; name the run"):
        score_folder(of_file(made.path), tmp_path / "own", QUIET)


def changed(home, record, primary, also):
    """The record of a run of a task that scores otherwise."""
    raw = json.loads((home.records / f"{record.run_id}.json").read_text())
    raw["task"] |= {"metric_primary": primary, "unit": "%"}
    raw["provenance"]["config_resolved"]["protocol"]["score"] |= {"primary": primary, "also": also, "unit": "%"}
    raw["metrics"]["last"] = {name: raw["metrics"]["last"].get(name, 50.0) for name in (primary, *also)}
    return raw


@pytest.mark.parametrize(("primary", "reads"), [("recall1", "emb, gallery"), ("teacher_agreement", "teacher")])
def test_a_score_that_takes_more_than_rows_is_left_to_the_next_metric(home, kd, tmp_path, primary, reads):
    from kdbench.records.files import parse

    other = loaded_of(home, parse(changed(home, kd, primary, ["top1"])))
    assert (other.module.about.scored.primary, other.searched) == ("top1", None)
    alone = loaded_of(home, parse(changed(home, kd, primary, [])))
    pictures(tmp_path / "own", [1000])
    with pytest.raises(UserError, match=f"do not tell {primary}, which reads {reads}; a task"):
        score_folder(alone.module, tmp_path / "own", QUIET)
    assert predict(alone.module, pictures(tmp_path / "more", [1000]), QUIET)[0].probabilities
