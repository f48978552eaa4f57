"""ccd: the views it asks for, confidence, weights, the inner method, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdbench.base.errors import UserError
from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import At, NotApplicable
from kdbench.engine.assemble import InnerMethod, hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.methods.ccd.adapter import CCD, confidence, soft_losses
from kdbench.specs import registry
from kdbench.specs.config import run_config


def prepared(tmp_path: Path, name="ccd"):
    ref = registry.method(name)
    config = method_config(ref)
    needs = ref.adapter().needs(hyper_parameters(config))
    return tiny(ref, config, needs, "classification").prepare(tmp_path)


@pytest.fixture
def ccd(tmp_path):
    return prepared(tmp_path)


def hp(**changes):
    card = registry.card("ccd")
    return card.typed({**card.defaults(), **changes})


def at():
    return At(0, 0, 1, 0.0, torch.Generator().manual_seed(0))


def build(ccd, **changes):
    return CCD(ccd.task, [ccd.method.student], ccd.method.teachers, hp(**changes))


def test_a_batch_holds_each_row_plain_and_augmented_with_draws_of_their_own(ccd):
    (stage,) = ccd.method.stages()
    batch = StageRun(ccd.method, stage, ccd.task).draw()
    assert batch.views == 2
    labels, index = batch.unview(batch.y), batch.unview(batch.index)
    assert torch.equal(labels[0], labels[1])
    assert torch.equal(index[0], index[1])
    raw = ccd.task.wrap(ccd.task.rows(index[0])).x["image"]
    plain = batch.view(0).x["image"]
    mirrored = raw.flip(3)
    as_is, turned = ((plain == x).flatten(1).all(1) for x in (raw, mirrored))
    assert (as_is | turned).all()  # this task's only augmentation is the mirroring
    assert not (batch.view(1).x["image"] == plain).flatten(1).all()


def test_two_rows_of_one_image_are_enough(ccd):
    batch = ccd.task.wrap(ccd.task.rows(torch.tensor([3, 3])))
    batch = type(batch)(batch.x, batch.y, batch.index, 2)
    assert all(torch.isfinite(term) for term in ccd.method.losses(batch, at()).values())


def test_teachers_confidence_is_a_constant_and_one_for_a_zero_row():
    teacher = torch.randn(2, 4, 5, requires_grad=True)
    student = torch.randn(2, 4, 5, requires_grad=True)
    sum(soft_losses(student, teacher, 4.0)).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert torch.equal(confidence(torch.zeros(1, 5), torch.randn(1, 5)), torch.ones(1))
    opposite = torch.randn(3, 5)
    assert torch.allclose(confidence(opposite, -opposite), torch.zeros(3), atol=1e-6)


def test_wrong_numbers_of_views_or_classes_are_refused():
    with pytest.raises(ValueError, match="two views"):
        soft_losses(torch.randn(3, 4, 5), torch.randn(3, 4, 5), 4.0)
    with pytest.raises(ValueError, match="two views"):
        soft_losses(torch.randn(2, 4, 5), torch.randn(2, 4, 6), 4.0)


def test_default_weights_are_one_cross_entropy_and_sixteen_divergences(ccd):
    batch = ccd.task.wrap(ccd.task.rows(torch.arange(8)))
    batch = type(batch)(batch.x, batch.y, batch.index, 2)
    terms = ccd.method.losses(batch, at())
    out = ccd.method.student(batch)
    soft = soft_losses(batch.unview(out.logits), batch.unview(ccd.method.teacher(batch).logits), 4.0)
    assert torch.allclose(terms["task"], ccd.task.loss(out, batch))
    assert torch.allclose(terms["plain_view"] + terms["augmented_view"], 16 * sum(soft) / 2)


def test_no_cross_entropy_keeps_the_scale_and_says_so(ccd):
    with pytest.warns(UserWarning, match="ce_weight=0"):
        method = build(ccd, ce_weight=0.0)
    batch = ccd.task.wrap(ccd.task.rows(torch.arange(8)))
    batch = type(batch)(batch.x, batch.y, batch.index, 2)
    terms, usual = method.losses(batch, at()), ccd.method.losses(batch, at())
    assert float(terms["task"].detach()) == 0
    assert torch.allclose(terms["plain_view"], 2 * usual["plain_view"])


def test_no_weight_for_the_cross_entropy_is_a_config_error():
    with pytest.raises(UserError, match=r"ce_weight.*null"):
        run_config("ccd", "digits", ["method.ce_weight=null"])


def test_a_single_class_is_refused(ccd):
    assert all(float(term) == 0 for term in soft_losses(torch.randn(2, 4, 1), torch.randn(2, 4, 1), 4.0))
    with pytest.raises(NotApplicable, match="at least 2 classes"):
        CCD(SimpleNamespace(classes=1), [ccd.method.student], ccd.method.teachers, hp())


def test_an_odd_number_of_rows_is_refused(ccd):
    batch = ccd.task.wrap(ccd.task.rows(torch.arange(5)))
    with pytest.raises(RuntimeError, match=r"multiply up to|size"):
        ccd.method.losses(type(batch)(batch.x, batch.y, batch.index, 2), at())


@pytest.mark.parametrize(("given", "expected"), [(None, 0.7), (0.2, 0.2)])
def test_soft_weight_is_the_rest_unless_given(ccd, given, expected):
    batch = ccd.task.wrap(ccd.task.rows(torch.arange(8)))
    batch = type(batch)(batch.x, batch.y, batch.index, 2)
    terms = build(ccd, ce_weight=0.3, soft_weight=given).losses(batch, at())
    usual = ccd.method.losses(batch, at())
    assert torch.allclose(terms["plain_view"], usual["plain_view"] * expected / 0.5)


def test_kd_jda_weighs_every_augmented_row_by_one(ccd, tmp_path):
    other = prepared(tmp_path / "other", "kd+jda").method
    assert other.hp.confidence is False
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    plain, augmented = soft_losses(student, teacher, 4.0, confident=False)
    rows = soft_losses(student.flip(0), teacher.flip(0), 4.0, confident=False)
    assert torch.equal(plain, rows[1])
    assert torch.equal(augmented, rows[0])


def test_an_inner_method_gets_both_views(ccd):
    inner = InnerMethod(method_config(registry.method("kd")))
    assert CCD.needs(_with(inner)).views == 2
    method = CCD(ccd.task, [ccd.method.student], ccd.method.teachers, _with(inner))
    (stage,) = method.stages()
    assert stage.views is method.views
    run = StageRun(method, stage, ccd.task)
    assert set(run.step()) == {"ce", "kd", "total"}
    assert method.deployed is ccd.method.student


def _with(inner):
    values = vars(hp())
    return type(hp())(**{**values, "inner": inner})


def test_an_inner_method_with_views_of_its_own_is_refused(ccd):
    inner = InnerMethod(method_config(registry.method("kd+jda")))
    with pytest.raises(NotApplicable, match="views of its own"):
        CCD(ccd.task, [ccd.method.student], ccd.method.teachers, _with(inner))


def test_different_numbers_of_classes_are_refused(ccd):
    teacher = ccd.method.teacher
    teacher.fc = torch.nn.Linear(teacher.fc.in_features, 7)
    with pytest.raises(NotApplicable, match="10 classes, the teacher 7"):
        build(ccd)
