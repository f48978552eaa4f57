"""A folder a class, as people have them: what is a class, what is a row, what is passed over, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.data import Place
from kdbench.data.decode import cache, tables
from kdbench.data.decode.table import held_back
from kdbench.data.feed import described

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


def fill(folder: Path, number: int, count: int = 4, suffix: str = "png") -> None:
    """Pictures whose grey level tells the class and whose first pixel the row."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(count):
        pixels = np.full((4, 4, 3), 60 * number + 20, np.uint8)
        pixels[0, 0] = row
        Image.fromarray(pixels).save(folder / f"{row:02}.{suffix}", "JPEG" if suffix == "jfif" else None)


@pytest.fixture
def root(place: Place) -> Path:
    assert place.folder is not None
    for part, count in (("train", 4), ("test", 2)):
        for number, name in enumerate(CLASSES):
            fill(place.folder / "toy" / part / name, number, count)
    return place.folder / "toy"


def loaded(samples: Any, place: Place, **more: Any) -> Any:
    return described.load(samples.spec(**more), {}, place)


def levels(data: Any, part: str = "train") -> list[tuple[int, int]]:
    """Label and grey level of each row."""
    rows = getattr(data, part)
    return list(zip(rows.y.tolist(), rows.x["image"][:, 0, 3, 3].tolist(), strict=True))


WHOLE = [(label, 60 * label + 20) for label in range(3) for _ in range(4)]


def test_class_folders_of_both_parts_are_compared_by_name(root: Path, samples: Any, place: Place) -> None:
    assert levels(loaded(samples, place)) == WHOLE
    (root / "test" / "bee").rename(root / "test" / "Bee")
    with pytest.raises(UserError, match=r"only train/ has bee; only test/ has Bee"):
        loaded(samples, place)


def test_folders_of_tools_are_no_classes_and_their_files_no_rows(root: Path, samples: Any, place: Place) -> None:
    for name in (".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"):
        fill(root / "train" / name, 0, 1)
    fill(root / "train" / "ant" / ".ipynb_checkpoints", 2, 2)
    (root / "train" / "ant" / "._00.png").write_bytes(b"\0\5\x16\7")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / name).write_bytes(b"x")
    assert levels(loaded(samples, place)) == WHOLE


def test_classes_are_read_to_any_depth_and_other_suffixes_too(root: Path, samples: Any, place: Place) -> None:
    fill(root / "train" / "ant" / "roll1" / "more", 0, 3)
    fill(root / "train" / "ant" / "roll0", 0, 2, "ppm")
    fill(root / "train" / "cat", 2, 1, "jfif")
    data = loaded(samples, place)
    assert data.train.y.tolist() == [0] * 9 + [1] * 4 + [2] * 5


def test_moving_a_nested_folder_to_another_class_is_seen(root: Path, samples: Any, place: Place) -> None:
    fill(root / "train" / "ant" / "roll1", 0, 3)
    before = loaded(samples, place)
    (root / "train" / "ant" / "roll1").rename(root / "train" / "cat" / "roll1")
    after = loaded(samples, place)
    assert (before.train.y.tolist().count(0), after.train.y.tolist().count(0)) == (7, 4)
    assert before.name != after.name


@pytest.mark.parametrize("whole_folders", [True, False])
def test_labels_exchanged_by_renaming_are_seen_though_sizes_and_times_agree(
    whole_folders: bool, root: Path, samples: Any, place: Place
) -> None:
    for path in root.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    for path in root.rglob("*.bmp"):
        os.utime(path, (1, 1))
    before = loaded(samples, place)
    ant, cat, aside = root / "train" / "ant", root / "train" / "cat", root / "aside"
    for one, two, three in (
        [(ant, cat, aside)] if whole_folders else [(p, cat / p.name, aside) for p in sorted(ant.iterdir())]
    ):
        one.rename(three), two.rename(one), three.rename(two)
    assert cache.peek(samples.spec(), root, place.cache) is None
    after = loaded(samples, place)
    assert [level for _, level in levels(after)] == [140] * 4 + [80] * 4 + [20] * 4
    assert before.name != after.name


def test_files_that_are_no_rows_are_counted_and_said_once(
    root: Path, samples: Any, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ant/a.heic", "ant/b.heic", "bee/notes.txt", "list"):
        (root / "train" / name).write_bytes(b"x")
    loaded(samples, place)
    said = capsys.readouterr().err
    assert "train: 4 files passed over: 2 .heic (ant/a.heic, ...), 1 no suffix (list), 1 .txt (bee/notes.txt)" in said
    loaded(samples, place)
    assert "passed over" not in capsys.readouterr().err


def test_a_class_without_a_row_is_refused(root: Path, samples: Any, place: Place) -> None:
    for path in (root / "train" / "bee").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(
        UserError, match=r"train: no file that is read in the class folder bee; .* passed over: 4 \.heic"
    ):
        loaded(samples, place)


def test_a_class_that_one_part_lacks_is_refused_and_one_that_both_lack_is_said(
    samples: Any, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.folder is not None
    rows = samples.image_rows(6)
    samples.write(place.folder, rows, rows | {"label": [0, 0, 1, 1, 1, 1]})
    with pytest.raises(UserError, match=r"test\.parquet: no row of class 2 in the test part, which the train part has"):
        loaded(samples, place)
    samples.write(place.folder, rows | {"label": [0, 0, 1, 1, 1, 1]}, rows)
    with pytest.raises(
        UserError, match=r"train\.parquet: no row of class 2 in the train part, which the test part has"
    ):
        loaded(samples, place)
    rows |= {"label": [0, 0, 2, 2, 2, 2]}
    samples.write(place.folder, rows, rows)
    assert loaded(samples, place).classes == 3
    assert "1 of its 3 classes have no row in either part" in capsys.readouterr().err


def test_links_are_followed_and_those_to_nowhere_named(root: Path, samples: Any, place: Place) -> None:
    (root / "bees").mkdir()
    (root / "train" / "bee").rename(root / "bees" / "bee")
    (root / "train" / "bee").symlink_to(root / "bees" / "bee")
    assert levels(loaded(samples, place)) == WHOLE
    (root / "train" / "ant" / "zz.png").symlink_to("/nonexistent/zz.png")
    with pytest.raises(UserError, match=r"ant/zz\.png: a link to a file that is not there"):
        loaded(samples, place)
    (root / "train" / "ant" / "zz.png").unlink()
    (root / "train" / "ant" / "loop").symlink_to(root / "train" / "ant")
    with pytest.raises(UserError, match="ant/loop: a link to a folder that holds it"):
        loaded(samples, place)


def test_names_of_another_encoding_are_read_and_shown(root: Path, samples: Any, place: Place) -> None:
    for part in ("train", "test"):
        folder = os.fsencode(root / part)
        try:
            os.rename(folder + b"/bee", folder + b"/b\xfcr")
        except OSError:
            pytest.skip("this file system takes names of one encoding alone")
        os.rename(folder + b"/b\xfcr/00.png", folder + b"/b\xfcr/\xdf.png")
    assert len(loaded(samples, place).train.y) == 12
    with open(os.fsencode(root / "train") + b"/b\xfcr/\xdf.png", "wb") as file:
        file.write(b"nothing")
    with pytest.raises(UserError, match="7 bytes that are no picture") as caught:
        loaded(samples, place)
    str(caught.value).encode()


def test_an_archive_that_holds_its_folder_twice_is_read(root: Path, samples: Any, place: Place) -> None:
    (root / "train").rename(root / "inner")
    (root / "train").mkdir()
    (root / "inner").rename(root / "train" / "train")
    assert levels(loaded(samples, place)) == WHOLE


def test_rows_are_held_back_within_each_class_by_a_fixed_seed(samples: Any, place: Place) -> None:
    assert place.folder is not None
    rows = samples.image_rows(50)
    rows["label"] = [n % 3 if n % 5 else 2 for n in range(50)]  # every fifth row is of class 2
    samples.write(place.folder, rows, samples.image_rows(3))
    together = {"parts": {"train": ["train"], "test": ["train"]}, "test_every": 5}
    data = loaded(samples, place, **together)
    counts = np.bincount(rows["label"])
    assert [np.bincount(part.y).tolist() for part in (data.train, data.test)] == [
        [int(n - round(n / 5)) for n in counts], [round(n / 5) for n in counts],
    ]  # fmt: skip
    again = described.load(samples.spec(**together), {}, Place(place.folder, place.cache / "other"))
    assert torch.equal(again.test.x["image"], data.test.x["image"])
    assert data.name == again.name


def test_what_is_held_back() -> None:
    labels = [0] * 10 + [1] * 3 + [2] * 2
    tests = held_back(labels, 5)
    assert [sum(t for t, label in zip(tests, labels, strict=True) if label == c) for c in range(3)] == [2, 1, 1]
    assert held_back(labels[:10], 5) == tests[:10]  # other classes decide nothing about it
    assert sum(held_back([0] * 100, 4)) == 25


def test_a_class_of_one_row_cannot_be_split(root: Path, samples: Any, place: Place) -> None:
    for path in sorted((root / "train" / "bee").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match="class bee has one row, which cannot stand in both parts"):
        loaded(samples, place, parts={"train": ["train"], "test": ["train"]}, test_every=5)


def test_a_listed_file_without_a_label_is_named(samples: Any, place: Place) -> None:
    assert place.folder is not None
    rows = samples.image_rows(3)
    for part in ("train", "test"):
        samples.as_metadata(place.folder / "toy", part, rows)
    listed = place.folder / "toy" / "train" / "metadata.csv"
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes())  # as spreadsheets write it
    assert loaded(samples, place).train.y.tolist() == [0, 1, 2]
    assert not tables.passed_over(samples.spec(), place.folder / "toy")
    (listed.parent / "more.png").write_bytes(b"x")
    (said,) = tables.passed_over(samples.spec(), place.folder / "toy")
    assert said.endswith("train: 1 file passed over: 1 .png (more.png)")
    whole = listed.read_text()
    listed.write_text(f"{whole}1.png,2\n")
    with pytest.raises(UserError, match=r"line 5: '1\.png' has label 1 in line 3 and 2 here; .*multi-label"):
        loaded(samples, place)
    listed.write_text(whole.replace("1.png,1", "1.png,"))
    with pytest.raises(UserError, match=r"metadata\.csv line 3: label is empty"):
        loaded(samples, place)
    listed.write_text(whole.replace("1.png,1", "1.png,1,5"))
    with pytest.raises(UserError, match=r"metadata\.csv line 3: 3 values for 2 columns"):
        loaded(samples, place)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([[0, 1], [1], [2]], r"several labels a row, multi-label"),
        ([0, None, 2], r"row 1, column 'label': label None is none; leave rows without a label out"),
        ([0, 1, -1], r"row 2, .*label -1 is not one of 0 to 2 \(-1 often stands for a row without a label"),
    ],
)
def test_rows_of_several_labels_or_none_are_refused_by_name(
    labels: list[Any], said: str, samples: Any, place: Place
) -> None:
    assert place.folder is not None
    samples.write(place.folder, samples.image_rows(3) | {"label": labels}, samples.image_rows(3))
    with pytest.raises(UserError, match=said):
        loaded(samples, place)
