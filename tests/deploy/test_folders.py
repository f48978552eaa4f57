"""A network on files of one's own: labelled ones are scored, the class by its name; others are predicted."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.data.sources import digits
from kdbench.deploy import load as loading
from kdbench.deploy import rows
from kdbench.deploy.predict import predict
from kdbench.deploy.score import score_folder
from kdbench.terminal import answers

QUIET = Progress.silent()
PIXELS, LABELS = digits.images()
SOME = range(1000, 1040)


@pytest.fixture
def student(home, kd):
    return loading.load(kd, "student", home, None, QUIET).module


def right(module, numbers=SOME) -> float:
    """top1 on some digits, computed by hand."""
    found = module(torch.from_numpy(PIXELS[list(numbers)])[:, None]).argmax(1)
    return 100 * (found == torch.from_numpy(LABELS[list(numbers)])).double().mean().item()


def png(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS[number]).save(path)
    return path


def test_class_folders_are_matched_by_name(student, tmp_path):
    some = [number for number in SOME if LABELS[number] > 2]
    for number in some:
        png(tmp_path / "own" / str(LABELS[number]) / f"{number}.png", number)
    found = score_folder(student, tmp_path / "own", QUIET)
    assert found.metrics["top1"] == pytest.approx(right(student, some))
    assert sum(found.rows) == len(some)
    assert found.rows[:3] == (0, 0, 0)
    table, lacking = answers.score(student.about, found, "own")
    assert table.row_count == 3
    assert lacking == "no rows of 3 of 10 classes: 0, 1, 2"
    assert answers.score_json(student.about, found)["rows_by_class"]["5"] == found.rows[5]


def test_a_class_that_is_not_known_is_one_line(student, tmp_path):
    png(tmp_path / "own" / "1" / "a.png", 1000)
    png(tmp_path / "own" / "11" / "a.png", 1000)
    with pytest.raises(UserError, match=r"11 is no class of the network's \(did you mean '1'\?\); it knows 0, 1,"):
        score_folder(student, tmp_path / "own", QUIET)


def test_a_list_of_files_is_read(student, tmp_path):
    lines = ["file_name,label"]
    for number in SOME:
        png(tmp_path / "own" / f"{number}.png", number)
        lines.append(f"{number}.png,{LABELS[number]}")
    (tmp_path / "own" / "metadata.csv").write_text("\n".join(lines))
    assert score_folder(student, tmp_path / "own", QUIET).metrics["top1"] == pytest.approx(right(student))


def table(path: Path, labels: list[int], names: list[str] | None) -> None:
    pictures = []
    for number in SOME:
        buffer = io.BytesIO()
        Image.fromarray(PIXELS[number]).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    made = pa.table({"image": pictures, "label": labels})
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)


def test_tables_are_read_their_classes_by_name_where_they_have_names(student, tmp_path):
    labels = [int(LABELS[number]) for number in SOME]
    table(tmp_path / "plain" / "part.parquet", labels, None)
    table(tmp_path / "named" / "part.parquet", [9 - label for label in labels], list("9876543210"))
    for folder in ("plain", "named"):
        assert score_folder(student, tmp_path / folder, QUIET).metrics["top1"] == pytest.approx(right(student))
    table(tmp_path / "other" / "part.parquet", labels, [*"012345678", "nine"])
    with pytest.raises(UserError, match="nine is no class"):
        score_folder(student, tmp_path / "other", QUIET)
    table(tmp_path / "plain" / "train.parquet", labels, None)
    with pytest.raises(UserError, match="tables of part, train"):
        score_folder(student, tmp_path / "plain", QUIET)


def test_numbers_to_predict_are_scored_from_a_list(home, angle, tmp_path):
    module = loading.load(angle, "student", home, None, QUIET).module
    lines = ["file_name,target", *(f"{png(tmp_path / 'own' / f'{n}.png', n).name},{n % 50}" for n in SOME)]
    (tmp_path / "own" / "metadata.csv").write_text("\n".join(lines))
    found = score_folder(module, tmp_path / "own", QUIET)
    values = module(torch.from_numpy(PIXELS[list(SOME)])[:, None])
    expected = (values - torch.tensor([float(n % 50) for n in SOME])).abs().double().mean().item()
    assert found.metrics["mae"] == pytest.approx(expected, rel=1e-5)
    assert answers.score_json(module.about, found)["units"]["mae"] == "°"


def test_folders_that_are_not_there(student, tmp_path):
    (tmp_path / "owl").mkdir()
    with pytest.raises(UserError, match=r"no such folder \(did you mean 'owl'\?\)"):
        score_folder(student, tmp_path / "own", QUIET)


def test_predictions_have_a_class_and_all_probabilities(student, tmp_path):
    files = [png(tmp_path / f"{number}.png", number) for number in SOME]
    found = predict(student, files, QUIET)
    expected = student(torch.from_numpy(PIXELS[list(SOME)])[:, None]).double().softmax(1)
    assert torch.allclose(torch.tensor([one.probabilities for one in found], dtype=torch.float64), expected)
    lines = list(csv.DictReader(io.StringIO(answers.predictions_csv(student.about, found))))
    best = expected.argmax(1)
    assert [line["class"] for line in lines] == [str(int(one)) for one in best]
    assert float(lines[0]["probability"]) == pytest.approx(expected[0].max().item(), rel=1e-5)
    assert sum(float(lines[0][f"p:{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-4)
    asked = answers.predictions_json(student.about, found)
    assert asked[3]["file"] == str(files[3])
    assert asked[3]["class"] == str(int(best[3]))
    assert answers.predictions(student.about, found).row_count == len(files)


def test_values_are_predicted_in_their_unit(home, angle, tmp_path):
    module = loading.load(angle, "student", home, None, QUIET).module
    found = predict(module, [png(tmp_path / "a.png", 1000)], QUIET)
    text = answers.predictions_csv(module.about, found)
    assert text.splitlines()[0] == "file,value,unit"
    value = module(torch.from_numpy(PIXELS[1000:1001])[:, None]).item()
    assert answers.predictions_json(module.about, found)[0] == {
        "file": str(tmp_path / "a.png"), "value": pytest.approx(value), "unit": "°",
    }  # fmt: skip


def test_files_that_the_network_does_not_read_are_named(student, tmp_path):
    png(tmp_path / "small.png", 1000)
    Image.new("L", (9, 8)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, line in (
        ("smal.png", r"no such file \(did you mean 'small.png' or"),
        ("large.png", "9x8 pixels, 8x8 expected"),
        ("text.png", "no picture"),
        (".", "a folder; name the files"),
    ):
        with pytest.raises(UserError, match=line):
            predict(student, [tmp_path / name], QUIET)


def test_rows_that_no_file_holds_are_said_to_be_none(student):
    raw = student.about.raw.model_copy(update={"form": None})
    with pytest.raises(UserError, match="made by the data source"):
        rows.read(raw, [Path("a.png")])
