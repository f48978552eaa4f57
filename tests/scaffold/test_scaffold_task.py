"""``kdbench new task``: what it finds in a folder, a parquet file and on the hub, and that what it writes runs."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from as_new import forget
from plugged import kdbench, metadata, plugged

from kdbench import cli, scaffold
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.base.yamlfile import read_as
from kdbench.checks import check_task
from kdbench.data import Place, status
from kdbench.data.decode import specification
from kdbench.data.feed import described
from kdbench.specs import local, registry


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


@pytest.fixture
def folder(samples, tmp_path: Path) -> Path:
    """Grey 8x8 pictures in class folders, not split into parts."""
    for label in range(3):
        (tmp_path / "My scans" / f"c{label}").mkdir(parents=True)
        for number in range(10):
            pixels = np.full((8, 8), 80 * label, dtype=np.uint8) + samples.picture(8, 1) // 4
            (tmp_path / "My scans" / f"c{label}" / f"{number}.png").write_bytes(samples.encoded(pixels))
    return tmp_path / "My scans"


@pytest.fixture
def parquet(samples, tmp_path: Path) -> Path:
    rows = [
        {"photo": {"bytes": samples.encoded(samples.picture(8)), "path": None}, "kind": n % 2, "age": n / 2, "who": "x"}
        for n in range(20)
    ]
    for part in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{part}-00000-of-00001.parquet")
    return tmp_path / "train-00000-of-00001.parquet"


def files(made: scaffold.Made) -> tuple[Any, Any]:
    """The task and the data set that were written."""
    (task,) = (path for path in made.files if "tasks" in path.parts)
    (data,) = (path for path in made.files if "sets" in path.parts)
    name = task.relative_to(Path(*task.parts[:2])).with_suffix("").as_posix()
    spec = read_as(registry.TaskSpec, made.folder / task, name=name)
    return spec, read_as(specification.SetSpec, made.folder / data, name=data.stem)


def test_a_folder_without_parts_is_split_and_runs(folder: Path, tmp_path: Path) -> None:
    made = scaffold.new_task("scans", "folder", str(folder), standalone=True, to=tmp_path / "package")
    spec, data = files(made)
    assert (spec.kind, spec.baseline, spec.ranked, spec.data.augment) == ("classification", "kd", False, ["crop1"])
    given = data.inputs["image"]
    assert (given.kind, given.size, given.channels, data.label.classes) == ("image", 8, 1, 3)
    assert (data.test_every, data.about_rows, data.path) == (5, 24, str(folder))
    with plugged(made.folder):
        assert registry.task("scans") == spec
        assert status.status(spec, None, tmp_path / "cache").state == "found"
        rows = described.load(data, {}, Place(None, tmp_path / "cache"))
        assert [np.bincount(part.y).tolist() for part in (rows.train, rows.test)] == [[8, 8, 8], [2, 2, 2]]
        assert not rows.official
        found = {r.rule: r for r in check_task("scans", Home(tmp_path / "home"), None, Progress.silent())}
    assert {result.outcome for rule, result in found.items() if rule != "ranked"} == {"ok"}, found
    assert "identity: {rows: {train: 24, test: 6}, content: {train: " in found["ranked"].message


def test_parts_and_compressed_pictures_are_found(samples, tmp_path: Path) -> None:
    for part, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = samples.picture(70 + number)
                (tmp_path / "pets" / part / label / f"{number}.jpg").write_bytes(samples.encoded(pixels, "JPEG"))
    made = scaffold.new_task("pets/small", "folder", str(tmp_path / "pets"), standalone=True, to=tmp_path / "package")
    spec, data = files(made)
    assert (spec.name, spec.data.source, spec.data.augment) == ("pets/small", "pets", ["resized_crop25", "flip"])
    assert (data.inputs["image"].kind, data.parts, data.test_every) == (
        "picture", {"train": ["train"], "test": ["val"]}, None,
    )  # fmt: skip
    rows = described.load(data, {}, Place(None, tmp_path / "cache"))
    assert (len(rows.train.y), len(rows.test.y), rows.shape("image")) == (12, 6, (3, 64, 64))


def test_a_parquet_file_needs_the_column_named_where_several_could_be_meant(parquet: Path, tmp_path: Path) -> None:
    made = scaffold.new_task("faces", "parquet", str(parquet), standalone=True, to=tmp_path / "package")
    _, data = files(made)  # one whole-number column: no doubt
    assert (data.label.column, data.label.classes, data.inputs["image"].column) == ("kind", 2, "photo")
    assert data.parts == {"train": ["train"], "test": ["validation"]}
    made = scaffold.new_task("ages", "parquet", str(parquet), target="age", standalone=True, to=tmp_path / "other")
    spec, data = files(made)
    assert (spec.kind, spec.baseline, spec.score.primary) == ("regression", "plain", "mae")
    assert (data.target.column, data.target.range) == ("age", (0.0, 9.5))
    for options, said in (
        ({"label": "kindd"}, "did you mean 'kind'"),
        ({"label": "age"}, "whole numbers from 0"),
        ({"label": "kind", "target": "age"}, "not both"),
    ):
        with pytest.raises(UserError, match=said):
            scaffold.new_task("x", "parquet", str(parquet), standalone=True, to=tmp_path / "x", **options)


def test_a_data_set_of_the_hub_is_pinned(samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(list):
        def decode(self, on: bool) -> Stream:
            assert not on
            return self

        def take(self, n: int) -> list:
            return self[:n]

    rows = [{"image": {"bytes": samples.encoded(samples.picture(8)), "path": None}, "label": n % 2} for n in range(8)]
    splits = {"train": SimpleNamespace(num_examples=1000), "test": SimpleNamespace(num_examples=10)}
    info = SimpleNamespace(features={"label": SimpleNamespace(num_classes=5)}, splits=splits)
    revision = "a" * 40
    hub = SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha=revision))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    fake = SimpleNamespace(
        get_dataset_split_names=lambda *a, **k: list(splits),
        load_dataset_builder=lambda *a, **k: SimpleNamespace(info=info),
        load_dataset=lambda *a, **k: Stream(rows),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    made = scaffold.new_task("birds", "hub", "someone/birds", standalone=True, to=tmp_path / "package")
    spec, data = files(made)
    assert (data.hub.id, data.hub.revision, data.path) == ("someone/birds", revision, None)
    assert (data.label.classes, data.about_rows, spec.data.source) == (5, 1000, "birds")
    fake.load_dataset = lambda *a, **k: 1 / 0
    with pytest.raises(UserError, match=r"someone/birds cannot be had from the hub .division by zero"):
        scaffold.new_task("birds", "hub", "someone/birds", standalone=True, to=tmp_path / "more")

    def offline(*args: object, **settings: object) -> None:
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as error:
            raise RuntimeError("a long story of the client's") from error

    fake.load_dataset = offline
    with pytest.raises(UserError, match=r"\(no network to the hub\); connect .* with --folder or --parquet"):
        scaffold.new_task("birds", "hub", "someone/birds", standalone=True, to=tmp_path / "more")


def test_in_a_checkout_both_files_go_where_those_of_the_tree_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "tasks").mkdir(parents=True)
    monkeypatch.setattr(scaffold.task, "ROOT", tmp_path / "tree")
    made = scaffold.new_task("scans/all", "folder", str(folder))
    assert [path.as_posix() for path in made.files] == ["tasks/scans/all.yaml", "kdbench/data/sets/scans.yaml"]
    with pytest.raises(UserError, match="is there already"):
        scaffold.new_task("scans/all", "folder", str(folder))


def test_in_a_folder_of_ones_own_both_files_lie_there_and_run_by_path(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(UserError, match="named by its file, in one part without '/'"):
        scaffold.new_task("scans/all", "folder", str(folder), here=mine)
    made = scaffold.new_task("scans", "folder", str(folder), here=mine)
    assert [path.as_posix() for path in made.files] == ["scans.yaml", "sets/scans.yaml"]
    assert made.next[-1] == "kdbench distill --task ./scans.yaml"
    assert "scans" not in specification.set_names()
    name = local.task(str(mine / "scans.yaml"))
    assert specification.set_files()["scans"] == mine / "sets" / "scans.yaml"
    before = local._given["task", name].digest
    assert status.status(registry.task(name), None, tmp_path / "cache").state == "found"
    (mine / "sets" / "scans.yaml").write_text((mine / "sets" / "scans.yaml").read_text() + "# changed\n")
    forget()
    local.task(str(mine / "scans.yaml"))
    assert local._given["task", name].digest != before  # the data's file decides a run too


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits/few-shot", "there is a task 'digits/few-shot' already"),
        ("kd", "there is a method 'kd'"),
        ("mnist/mine", "there is a data set 'mnist' already; for another task on it copy the file of 'mnist'"),
        ("av-digits/mine", "there is a data set 'av-digits' already"),
        ("Birds", "is no name for a task"),
        ("a/b/c", "is no name for a task"),
        ("a__b", "is no name for a task"),
        ("../x", "is no name for a task"),
    ],
)
def test_names_that_are_taken_or_malformed_are_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        scaffold.new_task(name, "folder", str(tmp_path), standalone=True, to=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_data_that_are_not_pictures_are_refused_with_what_is_expected(folder: Path, tmp_path: Path) -> None:
    def refused(source: Any, where: Path, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            scaffold.new_task("x", source, str(where), standalone=True, to=tmp_path / "x", **options)
        return str(caught.value)

    assert "did you mean 'My scans'" in refused("folder", tmp_path / "My scan")
    assert "a folder a class with pictures in it is expected" in refused("folder", folder / "c0")
    assert "the class is the folder's name" in refused("folder", folder, label="kind")
    (tmp_path / "notes.parquet").write_bytes(b"nothing")
    assert "cannot be read as parquet" in refused("parquet", tmp_path / "notes.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "notes.parquet")
    assert "no column of picture files among text" in refused("parquet", tmp_path / "notes.parquet")
    (folder / "c1" / "3.png").write_bytes(b"no picture")
    assert "3.png: 10 bytes that are no picture" in refused("folder", folder)
    assert not (tmp_path / "x").exists()


def test_a_split_needs_one_name_for_both_parts(samples) -> None:
    with pytest.raises(ValueError, match="test_every exactly where"):
        samples.spec(test_every=5)
    with pytest.raises(ValueError, match="test_every exactly where"):
        samples.spec(parts={"train": ["all"], "test": ["all"]})


def test_no_data_set_of_the_tree_names_a_folder_of_a_machine() -> None:
    for path in specification.SETS.glob("*.yaml"):
        assert specification.set_spec(path.stem).path is None, f"{path}: remove `path` before you share the task"


def test_the_command_says_what_to_type_next(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", "new", "task", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out + captured.err

    code, said = run("scans", "--folder", str(folder), "--standalone", "--to", str(tmp_path / "package"))
    assert code == 0
    assert "kdbench evaluate --method plain --task scans --smoke" in said
    assert run("scans") == (2, "kdbench: name the data with one of --folder, --parquet, --coco, --voc and --hub\n")
    assert "belongs to --standalone" in run("scans", "--folder", str(folder), "--to", "x")[1]


@pytest.mark.slow
def test_the_commands_it_names_work(folder: Path, tmp_path: Path) -> None:
    made = scaffold.new_task("scans", "folder", str(folder), standalone=True, to=tmp_path / "package")
    package = metadata(made.folder)
    for line in made.next[1:]:
        done = kdbench(tmp_path / "home", *line.split()[1:], folders=(package,))
        assert done.returncode == 0, done.stdout + done.stderr
    listed = kdbench(tmp_path / "home", "list", "tasks", folders=(package,)).stdout
    assert "scans@v1" in listed
    assert "in the data folder" not in next(line for line in listed.splitlines() if line.strip().startswith("scans  "))
