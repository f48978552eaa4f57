"""Runs from Python: names, classes, modules and tensors; the same records as the command line's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import kdbench
from kdbench.base.errors import UserError
from kdbench.runs import published_teachers

ROWS = 60


def small(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3),
    )  # fmt: skip


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose brightness is their class."""
    y = torch.arange(ROWS) % 3
    noise = torch.rand(ROWS, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return noise / 3 + y.view(-1, 1, 1, 1) / 3, y


class Half(kdbench.Method):
    """Cross-entropy and half of the squared distance of the scores."""

    defaults = {"weight": 0.5}  # noqa: RUF012

    def losses(self, batch, at):
        out = self.student(batch)
        distance = (out.logits - self.teacher(batch).logits.detach()).square().mean()
        return {"ce": self.task.loss(out, batch), "distance": self.hp.weight * distance}


def test_any_module_has_a_place_in_a_loop_of_ones_own():
    torch.manual_seed(0)
    teacher, student = small(8), small(4)
    x, y = rows()
    before = [p.detach().clone() for p in student.parameters()]
    distiller = kdbench.Distiller(
        "reviewkd", teacher=kdbench.tap(teacher, maps=["1", "3"]), student=kdbench.tap(student, maps=["1", "3"]),
        example=(x, y), classes=3, epochs=2, steps=4,
    )  # fmt: skip
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    for _ in range(5):
        terms = distiller(x, y)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        distiller.after_step()
    assert set(terms) == {"task", "review"}
    assert any(not torch.equal(p, q) for p, q in zip(student.parameters(), before, strict=True))  # in place
    assert all(p.grad is None for p in teacher.parameters())
    own = set(student.parameters())
    assert own <= set(distiller.parameters())
    assert own.isdisjoint(distiller.extra_parameters())


@pytest.mark.parametrize(
    ("method", "taps", "classes", "line"),
    [
        ("at", {"maps": ["33"]}, 3, r"maps: no submodule '33'.*did you mean '3'"),
        ("at", {}, 3, "offers no maps"),
        ("kd", {}, 7, r"answers with scores of shape \(N, 3\), the task has 7 classes"),
    ],
)
def test_a_module_that_does_not_fit_is_one_line(method, taps, classes, line):
    x, y = rows()
    with pytest.raises(UserError, match=line):
        kdbench.Distiller(
            method, teacher=kdbench.tap(small(8), maps=["1"]), student=kdbench.tap(small(4), **taps),
            example=(x, y), classes=classes,
        )  # fmt: skip


def test_an_unknown_tap_is_one_line():
    with pytest.raises(UserError, match=r"mapps.*taps are maps, preact"):
        kdbench.tap(small(4), mapps=["1"])


def test_wrong_names_are_said_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match=r"unknown method 'kdd'.*kd"):
        kdbench.evaluate("kdd", "digits/few-shot", out=tmp_path)
    with pytest.raises(UserError, match="temprature"):
        kdbench.evaluate("kd", "digits/few-shot", overrides={"method.temprature": 2.0}, out=tmp_path)
    with pytest.raises(UserError, match="unknown task"):
        kdbench.sweep(["kd"], ["digits/few-short"], out=tmp_path)
    with pytest.raises(UserError, match="write a number and a unit"):
        kdbench.distill("digits/few-shot", budget="long", out=tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_classes_modules_and_tensors_run_and_are_swept(tmp_path):
    x, y = rows()
    torch.manual_seed(0)
    mine = kdbench.task("mine", train=(x, y), test=(x, y), student=small(4), teacher=small(8), epochs=2)
    found = kdbench.evaluate(
        Half, mine, seeds=[0], overhead="off", device="cpu", out=tmp_path, overrides={"method.weight": 0.25}
    )
    (run,) = found.runs
    assert (run["method"], run["task"], run["seed"], run["status"], run["hp.weight"]) == ("half", "mine", 0, "ok", 0.25)
    assert found.cells[0]["score"]["mean"] == run["score"]
    swept = kdbench.sweep(["kd", Half], [mine], seeds=[0, 1], overhead="off", device="cpu", out=tmp_path)
    frame = swept.to_pandas()
    assert sorted(frame[frame["hp.weight"] != 0.25][["method", "seed"]].itertuples(index=False, name=None)) == [
        ("half", 0), ("half", 1), ("kd", 0), ("kd", 1),
    ]  # fmt: skip
    student = kdbench.load_student(swept.runs[-1]["run_id"], out=tmp_path)
    assert isinstance(student, nn.Module)
    again = kdbench.evaluate("kd", mine, seeds=[0], overhead="off", device="cpu", out=tmp_path)
    assert again.runs[0]["run_id"] in {run["run_id"] for run in swept.runs}  # answered with its record


def test_published_teachers_are_taken_before_a_run(tmp_path):
    kdbench.evaluate(
        "plain", "digits/few-shot", seeds=[0], smoke=True, overhead="off", out=tmp_path, teachers="published"
    )
    held = {path.name for path in (tmp_path / "teachers").iterdir() if path.is_dir()}
    assert held >= {path.name for path in published_teachers.FOLDER.iterdir() if path.is_dir()} != set()
    with pytest.raises(UserError, match="teachers='publishd': 'own' or 'published' is asked for"):
        kdbench.evaluate("plain", "digits/few-shot", teachers="publishd", out=tmp_path)
