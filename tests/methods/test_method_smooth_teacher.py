"""smooth_teacher: the teacher's further training, and that the student learns from what it became."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from smalls import distinct
from tinies import tiny_of

from kdbench.base.home import Home
from kdbench.contract import At
from kdbench.methods.smooth_teacher.adapter import roughness, with_noise
from kdbench.records.files import Record
from kdbench.results import taught
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs.config import run_config

pytestmark = pytest.mark.seam
tiny = functools.cache(tiny_of)


def made(**given: Any) -> Any:
    """The method on a tiny pair, its hyper-parameters all different."""
    found = tiny("smooth_teacher")
    found.config.method.params.update({**distinct("smooth_teacher"), **given})
    with tempfile.TemporaryDirectory() as folder:
        return found.prepare(Path(folder))


def at(seed: int = 3) -> At:
    return At(0, 0, 0, 0.0, torch.Generator().manual_seed(seed))


def check_stages() -> None:
    """The teacher alone first, kept for other students; then the student alone, beside a teacher in eval mode."""
    prepared = made(teacher_phase=0.25, teacher_lr=0.7)
    method = prepared.method
    asked = []
    method.task.recall = lambda name, ledger, uses: asked.append((name, ledger, set(uses)))
    method.task.keep = lambda name, make, scope, ledger, uses: make()
    stages = method.stages()
    first = next(stages)
    assert (first.name, first.epochs, first.ledger, first.once) == ("smooth", 2, "teacher_train", True)
    assert asked == [("smooth", "teacher_train", {"smoothness_weight", "noise", "teacher_phase", "teacher_lr"})]
    (group,) = first.groups
    assert group.name == "teacher"
    assert set(group.params) == set(method.teacher.parameters())
    assert group.optimizer == {"lr": pytest.approx(0.7 * prepared.task.optimizer["lr"])}
    assert first.losses == method.teacher_losses
    method.train()
    assert method.teacher.training
    second = next(stages)
    assert (second.name, second.epochs, second.ledger) == ("distill", prepared.task.epochs, "distill")
    (group,) = second.groups
    assert group.name == "student"
    assert set(group.params) == set(method.student.parameters())
    assert second.losses == method.losses
    method.train()
    assert not any(module.training for module in method.teacher.modules())
    assert method.student.training


def check_teacher_terms() -> None:
    """Cross-entropy, and the weighted squared distance that noise moves the scores, the clean ones constant."""
    prepared = made()
    method, hp = prepared.method.eval(), prepared.method.hp
    batch = prepared.task.wrap(prepared.task.rows(torch.arange(12)))
    terms = method.teacher_losses(batch, at())
    x = batch.x["image"]
    noise = hp.noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    clean, moved = method.teacher.encode(x).logits, method.teacher.encode(x + noise).logits
    wanted = hp.smoothness_weight * ((moved - clean.detach()) ** 2).sum(1).mean() / clean.shape[1]
    assert terms.keys() == {"task", "smooth"}
    assert terms["task"].item() == pytest.approx(F.cross_entropy(clean, batch.y).item(), rel=1e-5)
    assert terms["smooth"].item() == pytest.approx(wanted.item(), rel=1e-5)
    weight = method.teacher.classifier.bias
    own = torch.autograd.grad(terms["smooth"], weight, allow_unused=True)[0]
    assert torch.allclose(own, torch.autograd.grad(wanted, weight)[0], rtol=1e-4)


def check_student_terms() -> None:
    """Those of kd, with the teacher as it is now, which gets no gradient."""
    prepared = made()
    method, hp = prepared.method.eval(), prepared.method.hp
    batch = prepared.task.wrap(prepared.task.rows(torch.arange(12)))
    terms = method.losses(batch, at())
    own, target = method.student(batch).logits, method.teacher(batch).logits
    p, q = (own / hp.temperature).softmax(1), (target / hp.temperature).softmax(1)
    wanted = hp.kd_weight * hp.temperature**2 * (q * (q / p).log()).sum(1).mean()
    assert terms.keys() == {"ce", "kd"}
    assert terms["ce"].item() == pytest.approx(hp.ce_weight * F.cross_entropy(own, batch.y).item(), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.autograd.grad(terms["kd"], method.teacher.classifier.bias, allow_unused=True)[0] is None


CHECKS: list[Callable[[], None]] = [check_stages, check_teacher_terms, check_student_terms]


@pytest.mark.parametrize("check", CHECKS)
def test_smooth_teacher(check):
    check()


def test_noise_is_on_one_input_alone() -> None:
    prepared = made()
    batch = prepared.task.wrap(prepared.task.rows(torch.arange(4)))
    moved = with_noise(batch, "image", 0.5, torch.Generator().manual_seed(0))
    assert (moved.x["image"] - batch.x["image"]).std().item() == pytest.approx(0.5, rel=0.1)
    assert torch.equal(moved.y, batch.y)
    assert torch.equal(moved.index, batch.index)
    assert roughness(torch.zeros(2, 4), torch.full((2, 4), 3.0)).item() == 9


def test_a_record_has_the_teachers_score_before_and_after(tmp_path: Path) -> None:
    def ran(method: str) -> Record:
        config = run_config(method, "digits/few-shot", smoke=True)
        found = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
        assert found.status == "ok", found.error
        return found

    record, kd = ran("smooth_teacher"), ran("kd")
    (teacher,) = record.models.teachers
    assert teacher.trained_metric is not None
    assert teacher.val_metric == kd.models.teachers[0].val_metric  # before: the task's teacher, which others share
    assert teacher.weights_sha256 == kd.models.teachers[0].weights_sha256
    assert kd.models.teachers[0].trained_metric is None
    (stage,) = (stage for stage in record.stages if stage.ledger == "teacher_train" and stage.steps)
    assert stage.device_h > 0
    assert stage.reusable
    assert taught.words(record) == f"teacher {teacher.val_metric:.2f} → {teacher.trained_metric:.2f} %"
    assert taught.score_of(record) == teacher.val_metric
    assert taught.each(record)[0]["trained_score"] == teacher.trained_metric
