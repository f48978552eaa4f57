"""Methods on distributions of boxes: regions, weights, a copy of the teacher, and heads that have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench import data
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.watch import first_difference, state_copy
from kdbench.contract import NotApplicable, Objects, Rows
from kdbench.data.decode.place import Place
from kdbench.data.feed.dataset import Dataset
from kdbench.engine import teachers
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.trainer import Trainer
from kdbench.methods.ld.adapter import valuable
from kdbench.methods.shared.bins import divergence
from kdbench.specs.config import RunConfig, run_config

CPU = torch.device("cpu")
METHODS = {
    "ld": ("shapes/gfl", {"edge_weight": "edges", "region_weight": "region", "class_weight": "class"}),
    "ld_obb": ("shapes/oriented", {"box_weight": "box", "class_weight": "class"}),
    "ddkd_obb": ("shapes/oriented", {"target_weight": "target", "others_weight": "others"}),
}
"""Task, and weights with their terms."""


def config(method: str, task: str, *overrides: str) -> RunConfig:
    return run_config(method, task, [*overrides, "train.epochs=1"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    place = Place(None, tmp_path_factory.mktemp("cache"), Progress.silent())
    return {task: data.load(config("plain", task).task.data, place).head(12) for task, _ in METHODS.values()}


def prepared(of: RunConfig, found: Dataset, folder: Path) -> Prepared:
    untrained = {role: teachers.untrained(of.task, role, found, CPU) for role in of.task.pair.teachers}
    return prepare(of, 0, RunPlace(CPU, Home(folder), None, folder / "run"), found, untrained)


def terms(made: Prepared, own: bool = False) -> dict[str, float]:
    """Of the first training rows; ``own``: the student is its own teacher."""
    if own:
        made.method.teachers["image"] = made.method.student
    made.method.eval()
    found = made.method.losses(made.task.wrap(made.task.rows(torch.arange(6))), None)
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("name", METHODS)
def test_each_weight_multiplies_its_own_term_and_a_copy_of_the_teacher_has_none(rows, tmp_path, name):
    task, weights = METHODS[name]
    whole = prepared(config(name, task), rows[task], tmp_path)
    before = terms(whole)
    assert before.keys() == {"task", *weights.values()}
    for weight, term in weights.items():
        value = 1.5 * getattr(whole.method.hp, weight)
        after = terms(prepared(config(name, task, f"method.{weight}={value}"), rows[task], tmp_path / weight))
        wanted = {key: value * (1.5 if key == term else 1) for key, value in before.items()}
        assert before[term] > 0
        assert after == pytest.approx(wanted, rel=1e-4)
    copy = terms(whole, own=True)
    assert [copy[term] for term in weights.values()] == pytest.approx([0] * len(weights), abs=1e-6)
    assert copy["task"] == before["task"]


@pytest.mark.parametrize("name", METHODS)
def test_of_weight_0_it_is_plain_bit_for_bit_and_pictures_without_objects_train(rows, tmp_path, name):
    task, weights = METHODS[name]

    def trained(of: RunConfig, found: Dataset, folder: Path) -> dict[str, Tensor]:
        made = prepared(of, found, folder)
        Trainer(made.method, made.task).run()
        return state_copy(made.method.student)

    off = [f"method.{weight}=0" for weight in weights]
    plain = trained(config("plain", task), rows[task], tmp_path / "plain")
    assert first_difference(plain, trained(config(name, task, *off), rows[task], tmp_path / "off")) is None
    none = Rows(rows[task].train.x, rows[task].train.y.keep(torch.zeros_like(rows[task].train.y.labels, dtype=bool)))
    empty = trained(config(name, task), replace(rows[task], train=none), tmp_path / "empty")
    assert all(value.isfinite().all() for value in empty.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_head_without_bins_is_not_applicable_with_the_reason(tmp_path, rows, name):
    task, _ = METHODS[name]
    net = config("plain", task).task.pair.student.net
    plain = f"fcos_{net.split('_', 1)[1]}"
    of = config(name, task, f"pair.student.net={plain}", f"pair.teachers.image.net={plain}")
    with pytest.raises(NotApplicable, match=r"offers no bins|targets' boxes are turned"):
        prepared(of, rows[task], tmp_path)


def test_the_valuable_region_surrounds_the_main_one_and_diou_makes_it_smaller():
    y, x = torch.meshgrid(torch.arange(12) * 8 + 4.0, torch.arange(12) * 8 + 4.0, indexing="ij")
    at = torch.stack([x, y], 2).view(-1, 2)
    anchors = [torch.cat([at - 32, at + 32], 1)]
    boxes = Objects.of([[[0, 20, 20, 70, 74]]], (96, 96)).boxes
    released, union = (valuable(boxes, anchors, form) for form in ("released", "union"))
    assert 0 < (union > 0).sum() < (released > 0).sum()
    assert (valuable(boxes[:0], anchors) == 0).all()


def test_a_divergence_is_a_mean_over_bins_with_the_teacher_constant():
    s, t = (torch.randn(4, 9, generator=torch.Generator().manual_seed(n), requires_grad=True) for n in range(2))
    p, q = ((x / 3).softmax(1) for x in (t, s))
    found: Any = divergence(s, t, 3.0)
    torch.testing.assert_close(found, 9 * (p * (p / q).log()).sum(1) / 9)
    found.sum().backward()
    assert t.grad is None
    assert s.grad is not None
