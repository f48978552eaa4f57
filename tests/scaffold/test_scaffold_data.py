"""``kdbench new task``: part names, files and columns as people have them, and what it says about the data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kdbench import cli, scaffold
from kdbench.base.errors import UserError
from kdbench.base.yamlfile import read_as
from kdbench.data import Place
from kdbench.data.decode import specification
from kdbench.data.feed import described
from kdbench.scaffold import partnames


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


class Tried:
    """A task made of data, and the rows it has."""

    def __init__(self, source: Any, where: Path, to: Path, **options: Any) -> None:
        made = scaffold.new_task("mine", source, str(where), standalone=True, to=to / "package", **options)
        (data,) = (path for path in made.files if "sets" in path.parts)
        self.spec = read_as(specification.SetSpec, made.folder / data, name="mine")
        self.notes = "\n".join(made.notes)
        rows = described.load(self.spec, {}, Place(None, to / "cache"))
        self.train, self.test = rows.train, rows.test
        self.parts = (self.spec.parts["train"][0], self.spec.parts["test"][0], self.spec.test_every)

    @property
    def counts(self) -> list[list[int]]:
        """Rows of each class, training part first."""
        return [np.bincount(part.y).tolist() for part in (self.train, self.test)]


def fill(samples: Any, folder: Path, count: int, classes: tuple[str, ...] = ("ant", "bee")) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(samples.encoded(samples.picture(8)))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"), ("Train", "Val"), ("train", "validate"), ("Training", "Testing"),
        ("seg_train", "seg_test"), ("train_images", "test_images"), ("TRAIN", "TEST"), ("trainSet", "testSet"),
        ("train", "Test"), ("images-training", "images-validation"), ("train2017", "val2017"), ("trn", "tst"),
        ("train images", "test"), ("asl_alphabet_train", "asl_alphabet_test"), ("train", "dev"),
    ],
)  # fmt: skip
def test_parts_are_known_by_all_their_names(train: str, test: str, samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d" / train, 3)
    fill(samples, tmp_path / "d" / test, 2)
    (tmp_path / "d" / "__MACOSX").mkdir()
    found = Tried("folder", tmp_path / "d", tmp_path)
    assert (found.parts, found.counts) == ((train, test, None), [[3, 3], [2, 2]])


def test_a_test_part_is_taken_before_a_validation_part_unless_it_has_no_classes(samples: Any, tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        fill(samples, tmp_path / "a" / part, count)
    assert Tried("folder", tmp_path / "a", tmp_path / "1").parts == ("train", "test", None)
    for part, count in (("train", 3), ("val", 2)):
        fill(samples, tmp_path / "b" / part, count)
    (tmp_path / "b" / "test").mkdir()
    (tmp_path / "b" / "test" / "0.png").write_bytes(samples.encoded(samples.picture(8)))
    found = Tried("folder", tmp_path / "b", tmp_path / "2")
    assert found.parts == ("train", "val", None)
    assert "b/test: without class folders, so val/ is the test part" in found.notes


@pytest.mark.parametrize("inside", ["", "images", "archive/data", "train", "train/train"])
def test_classes_are_found_within_wrapping_folders(inside: str, samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d" / inside, 5)
    found = Tried("folder", tmp_path / "d", tmp_path)
    assert (found.parts[2], found.counts) == (5, [[4, 4], [1, 1]])
    assert "one row in 5, of each class" in found.notes


@pytest.mark.parametrize("nested", [False, True])
def test_classes_that_are_called_like_parts_stay_classes(nested: bool, samples: Any, tmp_path: Path) -> None:
    for name in ("bus", "car", "test_bench", "train"):
        fill(samples, tmp_path / "d" / name if nested else tmp_path / "d", 5, ("roll",) if nested else (name,))
    assert Tried("folder", tmp_path / "d", tmp_path).counts == [[4] * 4, [1] * 4]


def test_parts_that_hold_no_classes_are_no_classes_themselves(samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d", 3, ("train", "test"))
    with pytest.raises(UserError, match=r"train/ and test/ are called like parts and hold no class folders"):
        Tried("folder", tmp_path / "d", tmp_path)
    fill(samples, tmp_path / "e", 3, ("test",))  # a hidden test part
    fill(samples, tmp_path / "e" / "train", 5)
    fill(samples, tmp_path / "e" / "extra", 5, ("x", "y"))
    found = Tried("folder", tmp_path / "e", tmp_path)
    assert (found.parts, found.counts) == (("train", "train", 5), [[4, 4], [1, 1]])
    assert "e/test: without class folders, so it is not the test part" in found.notes


def test_names_that_pair_up() -> None:
    assert partnames.pair(["train", "train_small", "test"]) == ("train", ["test"])
    assert partnames.pair(["train", "test_bench"]) is None
    assert partnames.pair(["seg_train", "seg_test", "seg_pred", "val"]) == ("seg_train", ["seg_test", "val"])
    assert partnames.pair(["Training", "Test", "test-multiple_fruits"]) == ("Training", ["Test"])
    assert partnames.pair(["pretrain", "contest"]) is None
    assert partnames.partners("mnist_train", ["mnist_test", "cifar_test"]) == ["mnist_test"]
    assert partnames.partners("data", ["test"]) == []


def test_folders_that_hold_no_two_classes_are_told_which_parts_are_known(samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d", 3, ("ant",))
    with pytest.raises(UserError, match=r"d: 1 class folders; .*validate.*as in training_set, seg_train"):
        Tried("folder", tmp_path / "d", tmp_path)
    (tmp_path / "d" / "bee").mkdir()
    with pytest.raises(UserError, match=r"d: no file that is read in the class folder bee"):
        Tried("folder", tmp_path / "d", tmp_path)
    fill(samples, tmp_path / "d", 1, ("bee",))
    with pytest.raises(UserError, match=r"class bee has one row"):
        Tried("folder", tmp_path / "d", tmp_path)


def test_what_is_passed_over_and_cut_off_is_said(samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d", 5)
    (tmp_path / "d" / "ant" / "x.heic").write_bytes(b"x")
    for path in (tmp_path / "d").rglob("*.png"):
        Image.new("RGB", (96, 32)).save(path)
    found = Tried("folder", tmp_path / "d", tmp_path)
    assert "1 file passed over: 1 .heic (ant/x.heic)" in found.notes
    assert (
        "pictures of 96x32 pixels: the short side is brought to 72, then the centre 64x64 is cut out, 26%"
        in found.notes
    )
    assert "`size: [64, 192]` with `resize: 64` keeps them whole" in found.notes
    assert "networks see RGB, 3 channels" in found.notes


def test_grey_pictures_that_are_no_squares_are_kept_as_they_are(samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d", 5)
    for number, path in enumerate(sorted((tmp_path / "d").rglob("*.png"))):
        Image.new("L" if number else "1", (14, 10), number and 20 * number).save(path)
    found = Tried("folder", tmp_path / "d", tmp_path)
    given = found.spec.inputs["image"]
    assert (given.kind, given.size, given.channels, given.convert) == ("image", (10, 14), 1, True)
    assert "pictures of 14x10 pixels are kept as they are, neither resized nor cropped" in found.notes
    assert "networks see grey, 1 channel (`channels`); of 10 looked at, 1 black and white are converted" in found.notes


def test_a_validation_part_beside_a_test_part_is_kept_apart(samples: Any, tmp_path: Path) -> None:
    for part, count in (("train", 4), ("valid", 3), ("test", 2)):
        fill(samples, tmp_path / "d" / part, count)
    found = Tried("folder", tmp_path / "d", tmp_path)
    assert found.spec.parts == {"train": ["train"], "test": ["test"], "val": ["valid"]}
    assert found.counts == [[4, 4], [2, 2]]
    assert "valid/ holds validation rows, neither trained on nor tested on" in found.notes


def test_a_class_that_only_the_test_part_has_is_named(samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d" / "train", 3, ("ant",))
    fill(samples, tmp_path / "d" / "test", 3)
    with pytest.raises(UserError, match=r"are not those of .*/train: only test/ has bee; give both parts"):
        Tried("folder", tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    ("mode", "factor", "white", "mean"),
    [("uint16", 257, None, 0.5), ("uint16", 16, 4095.0, 0.5), ("float32", 1 / 255, 1.0, 0.5)],
)
def test_what_is_white_is_measured(
    mode: str, factor: float, white: float | None, mean: float, samples: Any, tmp_path: Path
) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(5):
            ramp = np.arange(256).reshape(16, 16).astype(mode) * np.array(factor, mode)
            Image.fromarray(np.roll(ramp, number)).save(tmp_path / "d" / name / f"{number}.tiff")
    found = Tried("folder", tmp_path / "d", tmp_path)
    given = found.spec.inputs["image"]
    assert (given.white, given.channels) == (white, 1)
    assert given.mean[0] == pytest.approx(mean, abs=0.01)
    pixels = found.train.x["image"]
    assert len(pixels.unique()) > 200


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(samples: Any, count: int = 20, **columns: list[Any]) -> pa.Table:
    files = [{"bytes": samples.encoded(samples.picture(8)), "path": None} for _ in range(count)]
    held = {"image": pa.array(files, STRUCT)} | ({} if columns else {"label": [n % 2 for n in range(count)]})
    return pa.table(held | columns)


def test_a_parquet_file_is_itself_and_its_own_shards(samples: Any, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name, count in (
        ("train", 20), ("train_small", 4), ("train.bak", 6), ("train_metadata", 8), ("data", 10), ("data_old", 12),
        ("test", 4), ("test_old", 2), ("all-00000-of-00002", 6), ("all-00001-of-00002", 8), ("all-2", 4),
    ):  # fmt: skip
        made = table(samples, count) if name != "train_metadata" else pa.table({"note": ["x"]})
        pq.write_table(made, folder / f"{name}.parquet")

    def rows(name: str) -> tuple[int, int]:
        found = Tried("parquet", folder / f"{name}.parquet", tmp_path / name)
        assert found.spec.about_rows == len(found.train.y)
        return len(found.train.y), len(found.test.y)

    assert rows("train") == (20, 4)
    assert rows("train_small") == (4, 4)
    assert rows("data") == (8, 2)
    assert rows("data_old") == (10, 2)
    assert rows("all-00001-of-00002") == (12, 2)  # of 14


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing"), ("my_train", "my_val")])
def test_parts_of_parquet_files_are_known_by_all_their_names(
    train: str, test: str, samples: Any, tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    for name in (train, test):
        pq.write_table(table(samples), tmp_path / "d" / f"{name}.parquet")
    assert Tried("parquet", tmp_path / "d" / f"{train}.parquet", tmp_path).parts == (train, test, None)


def test_every_shard_is_looked_at(samples: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for shard in range(3):
        made = table(samples, 4, label=[shard] * 4)
        pq.write_table(made, tmp_path / "d" / f"train-{shard:05}-of-00003.parquet")
    pq.write_table(table(samples, 6, label=[0, 1, 2] * 2), tmp_path / "d" / "test-00000-of-00001.parquet")
    first = tmp_path / "d" / "train-00000-of-00003.parquet"
    found = Tried("parquet", first, tmp_path)
    assert found.counts == [[4, 4, 4], [2, 2, 2]]
    (tmp_path / "d" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="shard 1 of 00003 is missing"):
        Tried("parquet", first, tmp_path / "again")


def test_a_folder_of_parquet_files_is_one_table(samples: Any, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    for part in range(2):
        pq.write_table(table(samples, 10), tmp_path / "x.parquet" / f"part-{part}.snappy.parquet")
    found = Tried("parquet", tmp_path / "x.parquet", tmp_path)
    assert found.counts == [[8, 8], [2, 2]]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part in ("train", "test"):
        pq.write_table(table(samples, 10), tmp_path / "hub" / "data" / f"{part}-00000-of-00001.parquet")
    assert Tried("parquet", tmp_path / "hub", tmp_path / "2").counts == [[5, 5], [5, 5]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no parquet file in it"):
        Tried("parquet", tmp_path / "empty", tmp_path / "more")


def test_files_whose_columns_differ_are_named(samples: Any, tmp_path: Path) -> None:
    pq.write_table(table(samples), tmp_path / "train.parquet")
    for made, said in (
        (
            table(samples, label=["a", "b"] * 10),
            r"test\.parquet: column 'label' is of type string, numbers are expected",
        ),
        (table(samples, kind=[0, 1] * 10), ""),  # without labels: no test part
    ):
        pq.write_table(made, tmp_path / "test.parquet")
        if said:
            with pytest.raises(UserError, match=said):
                Tried("parquet", tmp_path / "train.parquet", tmp_path)
        else:
            assert (
                "test.parquet: its rows have no labels" in Tried("parquet", tmp_path / "train.parquet", tmp_path).notes
            )


def test_columns_are_chosen_by_known_names(samples: Any, tmp_path: Path) -> None:
    def found(name: str, made: pa.Table, **options: Any) -> specification.SetSpec:
        pq.write_table(made, tmp_path / f"{name}.parquet")
        return Tried("parquet", tmp_path / f"{name}.parquet", tmp_path / name, **options).spec

    whole, classes = list(range(20)), [n % 2 for n in range(20)]
    masks = table(samples).column("image")
    spec = found("masks", pa.table({"mask": masks, "Image": table(samples).column("image"), "Label": classes}))
    assert (spec.inputs["image"].column, spec.label.column) == ("Image", "Label")
    two = pa.table({"left": masks, "right": masks, "label": classes})
    with pytest.raises(UserError, match="name it with --image; there are left, right"):
        found("two", two)
    assert found("two", two, image="right").inputs["image"].column == "right"
    with pytest.raises(UserError, match="which column is predicted"):
        found("ids", table(samples, image_id=whole, who=["x"] * 20))
    assert found("digits", table(samples, image_id=whole, category=classes)).label.column == "category"
    assert found("lone", table(samples, kind=classes)).label.column == "kind"
    assert found("words", table(samples, label=["cow", "ant"] * 10)).label.names == ["ant", "cow"]
    assert found("counts", table(samples, label=["10", "9"] * 10)).label.names == ["9", "10"]
    with pytest.raises(UserError, match=r"row 1 has no label in column 'label'"):
        found("gaps", table(samples, label=["cow", None, "ant", "ant"] * 5))
    with pytest.raises(UserError, match=r"column 'label' is of type list<.*several labels a row; multi-label"):
        found("multi", table(samples, label=[[0, 1]] * 20))


def test_class_names_in_the_schema_are_read(samples: Any, tmp_path: Path) -> None:
    features = {"n": {"_type": "Value"}, "coarse": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    made = table(samples, n=[0, 1] * 10, coarse=[0, 1] * 10)
    named = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(named, tmp_path / "a.parquet")
    found = Tried("parquet", tmp_path / "a.parquet", tmp_path)
    assert (found.spec.label.column, found.spec.label.classes) == ("coarse", 3)
    assert "2 of 3 classes (0 to 2) occur" in found.notes


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"label": []}, {}, "it has no rows"),
        ({"age": [3.0] * 20}, {"target": "age"}, "every row has 3 in column 'age'; there is nothing to predict"),
        ({"age": [1.0] * 19 + [float("nan")]}, {"target": "age"}, "row 19 has no finite number in column 'age'"),
        ({"label": [0, None] * 10}, {}, "row 1 has no label in column 'label'; leave such rows out"),
        ({"label": [0, 1, -1, 1] * 5}, {}, "row 2 has the label -1, which often stands for none"),
        ({"label": [1, 2] * 10}, {}, "runs from 1 to 2; number the classes from 0"),
        ({"label": [0, 1] * 9 + [2, 1]}, {}, "class 2 has one row"),
    ],
)
def test_columns_that_predict_nothing_are_refused(
    columns: dict[str, Any], options: dict[str, Any], said: str, samples: Any, tmp_path: Path
) -> None:
    count = len(next(iter(columns.values())))
    made = {name: pa.array(values, pa.int64() if name == "label" else pa.float64()) for name, values in columns.items()}
    pq.write_table(table(samples, count, **made), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=said):
        Tried("parquet", tmp_path / "a.parquet", tmp_path, **options)


def test_a_test_part_without_labels_gives_way_to_a_validation_part(samples: Any, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    hidden = table(samples, 4, label=[-1] * 4)
    for name, made in (("train", table(samples)), ("test", hidden), ("validation", table(samples, 6))):
        pq.write_table(made, tmp_path / "d" / f"{name}.parquet")
    found = Tried("parquet", tmp_path / "d" / "train.parquet", tmp_path)
    assert found.parts == ("train", "validation", None)
    assert "test.parquet: its rows have no labels in 'label', so it is not the test part" in found.notes
    pq.write_table(table(samples, 6, label=[0, 1, 2] * 2), tmp_path / "d" / "validation.parquet")
    with pytest.raises(UserError, match="no row of class 2 in the part 'train'"):
        Tried("parquet", tmp_path / "d" / "train.parquet", tmp_path / "again")


@pytest.mark.parametrize("name", ["my data (1)", "Größe", "a'b", "{x}"])
def test_odd_file_and_column_names_are_read(name: str, samples: Any, tmp_path: Path) -> None:
    made = table(samples)
    pq.write_table(pa.table({name: made["image"], f"{name} label": made["label"]}), tmp_path / f"{name}.parquet")
    assert Tried("parquet", tmp_path / f"{name}.parquet", tmp_path).spec.label.column == f"{name} label"


def test_names_that_no_file_can_state_are_refused_before_anything_is_written(samples: Any, tmp_path: Path) -> None:
    for name, column, said in (
        (".hidden", "label", "a hidden file; rename it"),
        ("long", "l" * 100, "these data cannot be described: label.column: .* rename the file, folder or column"),
        ("n" * 120, "label", "these data cannot be described: parts.train"),
    ):
        made = table(samples)
        pq.write_table(pa.table({"image": made["image"], column: made["label"]}), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=said):
            scaffold.new_task("x", "parquet", str(tmp_path / f"{name}.parquet"), standalone=True, to=tmp_path / "x")
        assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="there is a method 'kd'"):
        scaffold.new_task("kd", "folder", str(tmp_path), standalone=True, to=tmp_path / "x")


def test_paths_with_spaces_can_be_typed_again_and_notes_are_printed(
    samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(samples, tmp_path / "d", 5)
    words = ["mine", "--folder", str(tmp_path / "d"), "--standalone", "--to", str(tmp_path / "a b")]
    monkeypatch.setattr(sys, "argv", ["kdbench", "new", "task", *words])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert f"pip install -e '{tmp_path / 'a b'}'" in said
    assert "note: no test part was found" in said


def test_a_hub_set_is_looked_at_alike(samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(list):
        def decode(self, on: bool) -> Stream:
            return self

        def take(self, n: int) -> list:
            return self[:n]

    def rows(labels: list[int | None]) -> Stream:
        files = [{"bytes": samples.encoded(samples.picture(8)), "path": None} for _ in labels]
        return Stream(
            {"mask": f, "image": f, "id": n, "kind": y} for n, (f, y) in enumerate(zip(files, labels, strict=True))
        )

    parts = {"train": rows([0, 1] * 4), "validation": rows([0, 1]), "test": rows([-1, -1])}
    info = SimpleNamespace(features={"kind": SimpleNamespace(num_classes=3)}, splits=None)
    hub = SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha="a" * 40))
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    fake = SimpleNamespace(
        get_dataset_split_names=lambda *a, **k: list(parts),
        load_dataset_builder=lambda *a, **k: SimpleNamespace(info=info),
        load_dataset=lambda *a, split, **k: parts[split],
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)

    def made(name: str) -> tuple[specification.SetSpec, str]:
        found = scaffold.new_task("birds", "hub", "someone/birds", standalone=True, to=tmp_path / name)
        (data,) = (path for path in found.files if "sets" in path.parts)
        return read_as(specification.SetSpec, found.folder / data, name="birds"), "\n".join(found.notes)

    spec, notes = made("a")
    assert (spec.label.column, spec.label.classes, spec.inputs["image"].column) == ("kind", 3, "image")
    assert spec.parts == {"train": ["train"], "test": ["validation"]}
    assert "test: its rows have no labels, so it is not the test part" in notes
    del parts["validation"]
    spec, notes = made("b")
    assert (spec.parts["test"], spec.test_every) == (["train"], 5)
    parts["train"] = rows([0, None] * 4)
    with pytest.raises(UserError, match="row 1 has no label in column 'kind'"):
        made("c")
