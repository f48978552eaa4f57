"""``kdbench check TASK`` on the rows: constant inputs, test rows that stand in the training part, and what is noted."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugged import plugged

from kdbench import scaffold
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks import check_task, rows, tasks
from kdbench.checks.result import CheckResult
from kdbench.contract import Rows
from kdbench.data.sources import digits
from kdbench.terminal import tables

NUMBERS = itertools.count()


@pytest.fixture
def samples(load):
    return load("support/data_samples.py")


def fill(samples: Any, folder: Path, make: Any, count: int = 5) -> None:
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(samples.encoded(make(label, number)))


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a task of a folder and gives its rules, without the run."""

    def check(folder: Path) -> dict[str, CheckResult]:
        name = f"rows{next(NUMBERS)}"  # Python keeps a package that it has imported
        made = scaffold.new_task(name, "folder", str(folder), standalone=True, to=tmp_path / "package")
        monkeypatch.setattr(tasks, "trains", lambda *args: None)
        with plugged(made.folder):
            found = check_task(name, Home(tmp_path / "home"), None, Progress.silent())
        return {result.rule: result for result in found}

    return check


def alpha(label: int, number: int) -> np.ndarray:
    """Black throughout, the shape in the alpha channel."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 3] = np.random.default_rng([label, number]).integers(0, 256, (8, 8))
    return pixels


def at_the_edge(label: int, number: int) -> np.ndarray:
    """What tells the classes lies outside the centre that is cut out."""
    pixels = np.zeros((80, 320, 3), np.uint8)
    pixels[:, :40] = np.random.default_rng([label, number]).integers(0, 256, (80, 40, 3))
    return pixels


@pytest.mark.parametrize("make", [alpha, at_the_edge])
def test_inputs_that_are_all_equal_are_refused(make: Any, checked: Any, samples: Any, tmp_path: Path) -> None:
    fill(samples, tmp_path / "d", make)
    found = checked(tmp_path / "d")["varies"]
    assert found.outcome == "failed"
    assert "all train rows of input 'image' are equal, and of one colour throughout: " in found.message


def test_a_class_whose_rows_are_all_equal_is_refused(checked: Any, samples: Any, tmp_path: Path) -> None:
    fill(
        samples, tmp_path / "d", lambda label, number: samples.picture(8) if label else np.full((8, 8, 3), 9, np.uint8)
    )
    assert "train rows of input 'image' of class 0 are equal" in checked(tmp_path / "d")["varies"].message


def test_test_rows_that_stand_in_train_are_counted(checked: Any, samples: Any, tmp_path: Path) -> None:
    def numbered(label: int, number: int) -> np.ndarray:
        return np.random.default_rng([label, number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    fill(samples, tmp_path / "d" / "train", numbered, 20)
    fill(samples, tmp_path / "d" / "test", lambda label, number: numbered(label, number + (100 if number else 0)), 20)
    (tmp_path / "d" / "train" / "bee" / "list.txt").write_text("x")
    found = checked(tmp_path / "d")
    assert (found["apart"].outcome, found["apart"].message) == (
        "ok", "2 of 40 test rows stand in the training part too, e.g. test/ant/0.png",
    )  # fmt: skip
    assert "1 file passed over: 1 .txt" in found["data"].message
    shown = tables.checks("mine", list(found.values()))
    assert any(line.startswith("  note: apart: 2 of 40 test rows") for line in shown)


def test_a_test_part_of_training_rows_is_refused_whatever_their_labels(
    checked: Any, samples: Any, tmp_path: Path
) -> None:
    pixels = [samples.picture(8) for _ in range(10)]
    fill(samples, tmp_path / "d" / "train", lambda label, number: pixels[5 * label + number])
    fill(samples, tmp_path / "d" / "test", lambda label, number: pixels[5 * (1 - label) + number])
    found = checked(tmp_path / "d")["apart"]
    assert (found.outcome, found.message.partition(",")[0]) == (
        "failed", "10 of 10 test rows stand in the training part too",
    )  # fmt: skip


def test_rows_of_a_module_are_compared_too() -> None:
    data = digits.load({})
    assert rows.varies(data) is None
    assert rows.apart(data, None).outcome == "ok"
    mixed = Rows(
        {"image": torch.cat([data.test.x["image"], data.train.x["image"][:3]])}, torch.cat([data.test.y] * 2)[:800]
    )
    assert rows.apart(replace(data, test=mixed), None).message == (
        "3 of 800 test rows stand in the training part too, e.g. row 797"
    )


def test_classes_without_a_row_are_noted(tmp_path: Path) -> None:
    from kdbench.data import Place
    from kdbench.specs.data import Data

    data = replace(digits.load({}), classes=12)
    assert list(rows.remarks(Data(source="digits"), data, Place(None, tmp_path))) == ["2 of 12 classes have no row"]


def test_classes_in_other_shares_are_noted(tmp_path: Path) -> None:
    from kdbench.data import Place
    from kdbench.data.feed.dataset import select
    from kdbench.specs.data import Data

    data = digits.load({})
    threes = select(data.test, torch.nonzero(data.test.y == 3).squeeze(1))
    said = list(rows.remarks(Data(source="digits"), replace(data, test=threes), Place(None, tmp_path)))
    assert said == [
        "the parts hold the classes in other shares: class 3 is 10.9 % of the training rows and 100.0 % of the test "
        "rows"
    ]
    assert list(rows.remarks(Data(source="digits"), data, Place(None, tmp_path))) == []
