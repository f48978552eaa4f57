"""Detectors in the engine: weight 0 is plain, what is not asked for is not computed, a stopped run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench import data
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.watch import first_difference, state_copy
from kdbench.contract import Dense, Method, Needs, NotApplicable, Objects, Rows
from kdbench.data.decode.place import Place
from kdbench.data.feed.dataset import Dataset
from kdbench.engine import teachers
from kdbench.engine.applicability import nets_and_data
from kdbench.engine.assemble import Prepared, prepare, require_shared
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trainer
from kdbench.specs.config import RunConfig, run_config

CPU = torch.device("cpu")
TWO_STAGES = "faster_rcnn_c8s4-16a4p20r16f16"
NETS = {
    "fcos": [],
    "faster_rcnn": [f"pair.student.net={TWO_STAGES}:cell_w4d1", f"pair.teachers.image.net={TWO_STAGES}:cell_w8d1"],
}
"""Of a pair, how the task's own is changed."""
OFF = ["method.attention_weight=0", "method.ce_weight=1"]


def config(method: str, overrides: list[str] | None = None) -> RunConfig:
    return run_config(method, "shapes", [*(overrides or []), "train.epochs=2"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = Place(None, tmp_path_factory.mktemp("cache"), Progress.silent())
    return data.load(config("plain").task.data, place).head(24)


def prepared(of: RunConfig, rows: Dataset, folder: Path) -> Prepared:
    """A method ready to train; its teacher is as it is before training."""
    untrained = {role: teachers.untrained(of.task, role, rows, CPU) for role in of.task.pair.teachers}
    return prepare(of, 0, RunPlace(CPU, Home(folder), None, folder / "run"), rows, untrained)


def trained(of: RunConfig, rows: Dataset, folder: Path) -> dict[str, torch.Tensor]:
    made = prepared(of, rows, folder)
    Trainer(made.method, made.task).run()
    return state_copy(made.method.student)


@pytest.mark.parametrize("pair", NETS)
def test_a_method_of_weight_0_is_plain_bit_for_bit(rows, tmp_path, pair):
    """Those that read proposals of two stages too."""
    nets = NETS[pair]
    plain = trained(config("plain", nets), rows, tmp_path / "plain")
    assert first_difference(plain, trained(config("at", [*OFF, *nets]), rows, tmp_path / "off")) is None
    assert first_difference(plain, trained(config("at", nets), rows, tmp_path / "on")) is not None
    if pair == "faster_rcnn":
        off = [f"method.{part}_weight=0" for part in ("neck", "neck_back", "head", "head_back")]
        assert first_difference(plain, trained(config("defeat", [*off, *nets]), rows, tmp_path / "defeat")) is None


def test_a_method_of_backbone_stages_runs_neither_head_nor_its_blocks_in_the_teacher(rows, tmp_path):
    made = prepared(config("at"), rows, tmp_path)
    calls: list[str] = []
    for side, net in (("teacher", made.method.teacher), ("student", made.method.student)):
        net.head.classification_head.cls_logits.register_forward_hook(lambda *_, side=side: calls.append(side))
        net.head.regression_head.conv[0].register_forward_hook(lambda *_, side=side: calls.append(side))
    stage = next(iter(made.method.stages()))
    StageRun(made.method, stage, made.task).step()
    assert set(calls) == {"student"}
    made.task.probe(made.method.teacher)  # whoever scores it gets everything
    assert "teacher" in calls
    assert made.method.teacher.sparing


@pytest.mark.parametrize("pair", NETS)
def test_a_stopped_run_goes_on_to_the_same_bits(rows, tmp_path, pair):
    nets = NETS[pair]
    whole = trained(config("plain", nets), rows, tmp_path / "whole")
    made = prepared(config("plain", nets), rows, tmp_path / "part")
    stage = next(iter(made.method.stages()))
    made.method.train()
    run = StageRun(made.method, stage, made.task)
    for _ in range(2):
        run.step()
    state = run.state()
    again = prepared(config("plain", nets), rows, tmp_path / "again")
    stage = next(iter(again.method.stages()))
    again.method.train()
    other = StageRun(again.method, stage, again.task)
    other.load(state)
    while other.step_number < other.total:
        other.step()
    assert first_difference(whole, state_copy(again.method.student)) is None


def test_pictures_without_objects_train(rows, tmp_path):
    def empty(part: Rows) -> Rows:
        return Rows(part.x, Objects.of([[]] * len(part.y), (64, 64)))

    made = prepared(config("plain"), replace(rows, train=empty(rows.train)), tmp_path)
    before = state_copy(made.method.student)
    done = Trainer(made.method, made.task).run()
    assert torch.tensor(done.digest).isfinite().all()
    assert first_difference(before, state_copy(made.method.student)) is not None


def test_a_student_starts_with_its_teachers_neck_and_head_where_the_task_says_so(rows, tmp_path):
    own = ["pair.student.inherit=[neck,head]"]
    made = prepared(config("plain", own), rows, tmp_path / "a")
    of = config("plain", own)
    giver = teachers.untrained(of.task, "image", rows, CPU).net
    student = made.method.student
    assert first_difference(giver.head.state_dict(), student.head.state_dict()) is None
    assert torch.equal(giver.neck.fpn.layer_blocks[0][0].weight, student.neck.fpn.layer_blocks[0][0].weight)
    plain = prepared(config("plain"), rows, tmp_path / "b").method.student
    assert first_difference(plain.body.state_dict(), made.method.student.body.state_dict()) is None
    assert first_difference(plain.head.state_dict(), made.method.student.head.state_dict()) is not None


def test_a_student_of_low_resolution_learns_from_levels_of_the_size_of_its_own(tmp_path):
    of = run_config("mgd", "shapes/low-res", ["train.epochs=1"])
    low = data.load(of.task.data, Place(None, tmp_path / "cache", Progress.silent())).head(16)
    made = prepared(of, low, tmp_path)
    student, teacher = made.method.student, made.method.teacher
    own, theirs = (made.task.probe(net).dense for net in (student, teacher))
    assert (student.reduced, teacher.reduced) == (2, 1)
    assert own.strides[:2] == theirs.strides[1:] == (8, 16)
    assert [level.shape for level in own.fpn[:2]] == [level.shape for level in theirs.fpn[1:]]
    for one, other in zip(own.anchors, theirs.anchors[1:], strict=False):
        assert torch.equal(one, other)
    StageRun(made.method, next(iter(made.method.stages())), made.task).step()
    assert len(made.method.pairs(made.task.probe(student), made.task.probe(teacher))) == 2


def test_gradients_are_clipped_over_all_parameters_of_an_update(rows, tmp_path):
    made = prepared(config("plain", ["train.clip=0.001"]), rows, tmp_path)
    made.method.train()
    run = StageRun(made.method, next(iter(made.method.stages())), made.task)
    run.step()
    norms = [p.grad.norm() for p in made.method.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("option", ["compile", "cuda_graphs"])
def test_captured_and_compiled_steps_and_several_processes_are_refused(option):
    with pytest.raises(UserError, match=f"engine.{option}=true: the number of objects differs"):
        require_shared(config("plain", [f"engine.{option}=true", "engine.fused=true"]), 1)
    with pytest.raises(UserError, match="divides by the objects of a batch"):
        require_shared(config("plain"), 2)


@pytest.mark.parametrize(
    ("needs", "line"),
    [
        (Needs(kinds=None, student=frozenset({"logits"})), "offers no logits"),
        (Needs(kinds=None, student=frozenset(), teacher=frozenset({"taps:7"})), "the image teacher offers no taps:7"),
        (Needs(kinds=None, student=frozenset(), teacher=frozenset({"roi"})), "the image teacher offers no roi"),
    ],
)
def test_what_a_detector_does_not_offer_is_not_applicable(rows, tmp_path, needs, line):
    made = prepared(config("at"), rows, tmp_path)
    made.method.teacher.asked = needs.teacher
    with pytest.raises(NotApplicable, match=line):
        nets_and_data(needs, made.task, made.method.student, made.method.teachers)


def test_boxes_are_refused_to_a_method_where_targets_hold_none(tmp_path):
    of = run_config("at", "digits/few-shot", ["train.epochs=1"])
    place = Place(None, tmp_path, Progress.silent())
    made = prepared(of, data.load(of.task.data, place), tmp_path)
    needs = Needs(kinds=None, student=frozenset(), teacher=frozenset(), batch=frozenset({"boxes"}))
    with pytest.raises(NotApplicable, match="it reads boxes, which the targets of a classification task do not hold"):
        nets_and_data(needs, made.task, made.method.student, made.method.teachers)


def test_what_is_asked_for_reaches_the_losses_of_a_method(rows, tmp_path, monkeypatch):
    seen: list[Dense] = []

    class Reads(Method):
        @classmethod
        def needs(cls, hp: Any) -> Needs:
            return Needs(kinds=None, student=frozenset({"taps:1", "assigned"}), teacher=frozenset({"fpn", "box"}))

        def losses(self, batch: Any, at: Any) -> dict[str, torch.Tensor]:
            out, target = self.student(batch), self.teacher(batch)
            seen.extend([out.dense, target.dense])
            return {"task": self.task.loss(out, batch)}

    of = config("at")
    monkeypatch.setattr(type(of.method.ref), "adapter", lambda self: Reads)
    made = prepared(of, rows, tmp_path)
    StageRun(made.method, next(iter(made.method.stages())), made.task).step()
    student, teacher = seen
    assert student.has("taps:1")
    assert student.has("assigned")
    assert teacher.words == {"fpn", "strides", "decode", "anchors", "box", "quality"}
