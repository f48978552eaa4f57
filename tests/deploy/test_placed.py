"""Networks that find places in pictures, taken away: their files, what they say of pictures, result files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import kdbench
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.cli.common import app
from kdbench.contract import Maps, Objects
from kdbench.deploy import export, results
from kdbench.records.files import Record
from kdbench.specs import registry

TASKS = ["shapes", "shapes/two-stage", "shapes/masks", "shapes/oriented", "shapes/semantic", "shapes/low-res"]


def said(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
def test_a_result_file_of_a_run_scores_as_its_record(
    task: str, trained: Callable[[str, str], Record], home: Home, tmp_path: Path
) -> None:
    record = trained("plain", task)
    own = ["--out", str(home.root)]
    file = tmp_path / "found.json"
    file.write_text(said("predict", record.run_id, "--test", *own))
    assert json.loads(file.read_text()) or task == "shapes/oriented"  # which finds nothing so early
    scored = json.loads(said("score", record.run_id, "--predictions", str(file), "--json", *own))
    primary = record.task.metric_primary
    assert record.metrics is not None
    assert scored["metrics"][primary] == pytest.approx(record.metrics.last[primary], abs=1e-9)
    assert scored["classes"] == pytest.approx(record.metrics.classes, abs=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["shapes", "shapes/masks", "shapes/oriented"])
def test_a_detectors_file_finds_what_its_network_does_on_pictures_of_any_size(
    task: str, trained: Callable[[str, str], Record], home: Home, tmp_path: Path
) -> None:
    record = trained("plain", task)
    path = tmp_path / "student.safetensors"
    made = export.export(record.run_id, "safetensors", "student", path, home, None, Progress.silent())
    assert made.apart == 0
    student = kdbench.load_student(path)
    assert student.about.rules == (registry.task(task).score.rules or {})
    side = student.about.raw.shape[-1]
    picture = tmp_path / "one.png"
    pixels = torch.randint(256, (side, side, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(picture)
    found = student(student.read([picture]))
    (one,) = json.loads(said("predict", str(path), str(picture), "--json"))
    assert [entry["score"] for entry in one["found"]] == pytest.approx(found.scores.tolist())
    assert said("predict", str(path), str(picture)).splitlines()[0] == "file,class,score,place"


Y = Objects.of([[[0, 1, 1, 5, 5]], []], (8, 8))


def refused(entries: Any, kind: str, y: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of a result file."""
    file = tmp_path / "found.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    spec = SimpleNamespace(of_kind=kdbench.kinds.kind(kind), score=SimpleNamespace(primary="ap", also=[], k=None))
    monkeypatch.setattr(results, "task_of", lambda record: spec)
    rows = SimpleNamespace(test=SimpleNamespace(y=y), classes=2, class_names=None)
    monkeypatch.setattr(results, "rows_of_run", lambda *args: rows)
    record: Any = SimpleNamespace(run_id="0123456789abcdef")
    with pytest.raises(UserError) as error:
        results.score_file(record, file, Home(tmp_path), None, Progress.silent())
    return str(error.value)


GOOD = {"image_id": 0, "category_id": 1, "score": 0.5, "bbox": [1, 1, 4, 4]}


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ("[{", "cut off or not readable"),
        ({"images": []}, "a result file is a list of what was found, as COCO's are; found dict"),
        ([GOOD, 3], "entry 1: an object with image_id and category_id is expected"),
        ([{**GOOD, "image_id": 2}], "entry 0: image_id is 2; 0 to 1 are the numbers of the test pictures"),
        ([{**GOOD, "image_id": "0"}], "entry 0: image_id is '0'"),
        ([{**GOOD, "category_id": 0}], "entry 0: category_id is 0; 1 to 2 are the numbers of the classes"),
        ([{**GOOD, "score": None}], "entry 0: score holds None; a number is expected"),
        ([{**GOOD, "score": float("nan")}], "entry 0: score holds nan"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "entry 0: bbox is [1, 2, 3]; 4 numbers are expected"),
        ([{**GOOD, "bbox": [1, 2, 3, "4"]}], "entry 0: bbox holds '4'"),
        ([{**GOOD, "score": 10**400}], "entry 0: score holds 1000"),
        ([{**GOOD, "bbox": [1, 2, 3, -(10**400)]}], "entry 0: bbox holds -1000"),
    ],
)
def test_a_result_file_that_cannot_be_is_refused_by_its_entry(
    entries: Any, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line in refused(entries, "detection", Y, tmp_path, monkeypatch)


def test_masks_of_another_size_and_kinds_without_places_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = {**GOOD, "segmentation": {"size": [4, 4], "counts": [16]}}
    maps = Maps(torch.zeros(2, 8, 8, dtype=torch.uint8))
    assert "its mask is of 4x4 pixels" in refused([region], "segmentation", maps, tmp_path, monkeypatch)
    line = refused([GOOD], "classification", torch.zeros(2), tmp_path, monkeypatch)
    assert line.startswith("0123456789ab: answers of a classification task are no places in pictures")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["score", "x"], "give --folder, a labelled folder, or --predictions, a result file"),
        (["predict", "x"], "name files, or give --test"),
        (["predict", "x", "a.png", "--test"], "name files, or give --test"),
    ],
)
def test_what_is_asked_for_is_one_thing(words: list[str], line: str) -> None:
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, UserError)
    assert line in str(found.exception)
