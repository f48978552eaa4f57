"""Bad input at the command line: one line that names file and row, exit code 2, no traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_samples as samples
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from kdbench import cli, models
from kdbench.data.decode import specification
from kdbench.specs import registry

image_rows, write, encoded, picture = samples.image_rows, samples.write, samples.encoded, samples.picture

TASK = {
    "title": "toy", "version": 1, "kind": "classification", "suite": "toy", "ranked": False,
    "unranked_because": "made up", "baseline": "kd", "data": {"source": "toy"},
    "pair": {"student": {"net": "convnet_w2"}, "teachers": {"image": {"net": "convnet_w4"}}},
    "train": {"epochs": 1, "batch": 4, "optimizer": {"name": "sgd", "lr": 0.1}},
    "score": {"primary": "top1"}, "seeds": [0],
}  # fmt: skip
EMPTY = {"img": pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "label": pa.int64()}


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs ``kdbench evaluate`` on a made-up data set; gives exit code, output and the last line of the errors."""

    def call(
        train: Any, *words: str, test: Any = None, inputs: Any = None, task: Any = None, types: Any = None, **more: Any
    ) -> tuple[int, str, str]:
        about = samples.spec(inputs, **more)
        (tmp_path / "sets").mkdir()
        (tmp_path / "sets" / "toy.yaml").write_text(about.model_dump_json(exclude={"name"}))  # JSON is YAML
        (tmp_path / "toy.yaml").write_text(json.dumps(TASK | (task or {})))
        monkeypatch.setattr(specification, "SETS", tmp_path / "sets")
        monkeypatch.setattr(registry, "task_files", lambda: {"toy": tmp_path / "toy.yaml"})
        specification.set_spec.cache_clear()
        registry.task.cache_clear()
        write(tmp_path / "data", train, test or image_rows(3), types)
        where = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "home"), "--device", "cpu"]
        method = "kd" if (TASK | (task or {}))["pair"]["teachers"] else "plain"
        options = ["--method", method, "--task", "toy", "--seed", "0", "--overhead", "off", *where, *words]
        monkeypatch.setattr(sys, "argv", ["kdbench", "evaluate", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        lines = [line for line in captured.err.strip().splitlines() if "your own data" not in line]
        assert len(lines) == 1, captured.err
        return int(stop.value.code or 0), captured.out, lines[0]

    yield call
    specification.set_spec.cache_clear()
    registry.task.cache_clear()


def zero_bytes() -> Any:
    rows = image_rows(6)
    rows["img"][4]["bytes"] = b""
    return rows


def grey() -> Any:
    rows = image_rows(6)
    rows["img"][1]["bytes"] = encoded(picture(channels=1))
    return rows


@pytest.mark.parametrize(
    ("train", "options", "line"),
    [
        pytest.param(
            {"img": image_rows(3)["img"], "labels": [0, 1, 2]}, {},
            "train.parquet: column 'label' (0 to 2) is missing (did you mean 'labels'?)", id="missing column",
        ),
        pytest.param(
            image_rows(3) | {"label": ["0", "1", "2"]}, {},
            "train.parquet: column 'label' is of type string, whole numbers are expected", id="wrong dtype",
        ),
        pytest.param(
            image_rows(3) | {"label": [0, 3, 1]}, {},
            "train.parquet row 1, column 'label': label 3 is not one of 0 to 2", id="label out of range",
        ),
        pytest.param(
            {"img": [], "label": []}, {"types": EMPTY}, "train.parquet: the train part is empty", id="empty split",
        ),
        pytest.param(
            zero_bytes(), {}, "train.parquet row 4, column 'img': a picture of zero bytes", id="zero-byte image"
        ),
        pytest.param(
            image_rows(6) | {"label": [0, 0, 1, 1, 1, 1]},
            {"task": {"data": {"source": "toy", "subset": {"per_class": 1}}}},
            "no row of class 2 in the train part, which the test part has", id="class absent from a part",
        ),
        pytest.param(
            image_rows(3) | {"file": ["a", "b", "a"]}, {"id": "file"},
            "train.parquet row 2, column 'file': 'a' stands at train.parquet row 0 already", id="repeated ids",
        ),
        pytest.param(
            grey(), {}, "train.parquet row 1, column 'img': a 1-channel picture (L), 3 channels expected",
            id="1-channel images",
        ),
        pytest.param(
            {"frames": [[encoded(picture(6)) for _ in range(count)] for count in (4, 2, 3)], "label": [0, 1, 2]},
            {
                "inputs": {"clip": samples.CLIP},
                "task": {"pair": {"student": {"net": "r2plus1d_tiny", "input": "clip"}, "teachers": {}}},
            },
            "train.parquet row 1, column 'frames': a video of 2 frames, the clip takes 3", id="video too short",
        ),
    ],
)  # fmt: skip
def test_bad_data(train: Any, options: dict[str, Any], line: str, evaluate: Callable[..., Any]) -> None:
    code, _, said = evaluate(train, **options)
    assert code == 2
    assert line in said


def test_a_teacher_of_another_class_count(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(models.build("convnet_w4", (3, 4, 4), 7).state_dict(), tmp_path / "seven.safetensors")
    code, _, said = evaluate(image_rows(6), f"pair.teachers.image.weights={tmp_path / 'seven.safetensors'}")
    assert code == 2
    assert "do not fit" in said
    assert "(7, 16) for (3, 16)" in said
    assert "seven.safetensors" in said


def test_a_teacher_of_colour_pictures_on_grey_ones(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    save_file(models.build("convnet_w4", (3, 4, 4), 3).state_dict(), tmp_path / "colour.safetensors")
    rows = image_rows(6)
    rows["img"] = [{"bytes": encoded(picture(channels=1)), "path": None} for _ in rows["img"]]
    one = {"image": samples.IMAGE | {"channels": 1, "mean": [0.5], "std": [0.5]}}
    weights = f"pair.teachers.image.weights={tmp_path / 'colour.safetensors'}"
    code, _, said = evaluate(rows, weights, test=rows, inputs=one)
    assert code == 2
    assert "(4, 3, 3, 3) for (4, 1, 3, 3)" in said


def test_good_data_run(evaluate: Callable[..., Any]) -> None:
    """The harness of these tests lets good rows through."""
    code, out, said = evaluate(image_rows(12))
    assert code == 0, said
    assert "toy@v1" in out


def test_files_that_are_cut_off(evaluate: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write

    def cut(folder: Path, *rest: Any) -> Path:
        whole(folder, *rest)
        path = folder / "toy" / "train.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        return folder

    monkeypatch.setitem(globals(), "write", cut)
    code, _, said = evaluate(image_rows(6))
    assert code == 2
    assert "train.parquet: cut off or not readable" in said


def test_numbers_that_are_not_finite(evaluate: Callable[..., Any]) -> None:
    rows = {"feature": [[1.0, 2.0, 3.0], [0.0, np.nan, 0.0]], "label": [0, 1]}
    pair = {"student": {"net": "linear", "input": "audio"}, "teachers": {}}
    code, _, said = evaluate(rows, test=rows, inputs={"audio": samples.VECTOR}, task={"pair": pair})
    assert code == 2
    assert "train.parquet row 1, column 'feature': number 1 is not finite" in said
