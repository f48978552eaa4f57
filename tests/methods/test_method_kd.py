"""kd: hand-worked values and edge cases that the golden vectors leave out."""

from __future__ import annotations

import math

import pytest
import torch

from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import At
from kdbench.engine.assemble import hyper_parameters
from kdbench.methods.kd.adapter import kd_loss
from kdbench.specs import registry


def at(epoch: int = 0) -> At:
    return At(0, epoch, 240, epoch / 240, torch.Generator())


def test_a_value_worked_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    assert float(kd_loss(student, teacher, 1.0)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_the_mean_is_over_rows_and_the_sum_over_classes():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    once = kd_loss(student, teacher, 4.0)
    assert kd_loss(student.repeat(3, 1), teacher.repeat(3, 1), 4.0) == pytest.approx(float(once))
    pad = torch.full((5, 6), -1e4, dtype=torch.float64)  # classes of probability 0 change nothing
    wide = kd_loss(torch.cat([student, pad], 1), torch.cat([teacher, pad], 1), 4.0)
    assert float(wide) == pytest.approx(float(once))


def test_the_gradient_keeps_its_size_when_the_temperature_changes():
    teacher, sizes = torch.randn(8, 10, dtype=torch.float64), []
    for temperature in (20.0, 80.0):
        student = torch.zeros(8, 10, dtype=torch.float64, requires_grad=True)
        kd_loss(student, teacher, temperature).backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_equal_logits_and_shifted_logits_give_zero():
    logits = torch.randn(4, 7, dtype=torch.float64)
    assert float(kd_loss(logits, logits, 4.0)) == pytest.approx(0, abs=1e-15)
    assert float(kd_loss(logits + 3, logits - 5, 4.0)) == pytest.approx(0, abs=1e-14)


def test_one_class_gives_zero():
    assert float(kd_loss(torch.randn(4, 1), torch.randn(4, 1), 4.0)) == 0


def test_huge_logits_stay_finite():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = kd_loss(student, torch.tensor([[-1e4, 1e4]]), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_the_teacher_is_a_constant():
    teacher = torch.randn(3, 4, requires_grad=True)
    kd_loss(torch.randn(3, 4, requires_grad=True), teacher, 4.0).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (1, 4)])
def test_other_classes_or_rows_are_refused_instead_of_broadcast(shape):
    with pytest.raises(ValueError, match=r"student logits \(3, 4\) and teacher logits"):
        kd_loss(torch.zeros(3, 4), torch.zeros(shape), 4.0)


def test_terms_are_weighted_and_a_weight_of_zero_leaves_cross_entropy(tmp_path):
    ref = registry.method("kd")
    config = method_config(ref)
    method = tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), "classification").prepare(tmp_path).method
    batch = method.task.wrap(method.task.rows(torch.arange(8)))
    method.eval()
    out, target = method.student(batch), method.teacher(batch)
    terms = method.losses(batch, at())
    assert torch.equal(terms["ce"], 0.1 * method.task.loss(out, batch))
    assert torch.equal(terms["kd"], 0.9 * kd_loss(out.logits, target.logits, 4.0))


def test_published_settings():
    card = registry.card("kd")
    pair = {"task": "any", "student": "resnet8x4", "teacher": "resnet32x4"}
    assert card.for_pair(source="cifar100", **pair) == (
        {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9},
        "official_code",
    )
    assert card.for_pair(source="imagenet", **pair)[0] == {"temperature": 1.0, "ce_weight": 0.5, "kd_weight": 0.5}
