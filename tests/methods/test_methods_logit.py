"""Fragile spots of methods on class scores: dkd, nkd, dist, lskd, mlkd, and the label smoothing of plain."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdbench.contract import NotApplicable
from kdbench.methods.ban.adapter import born_again_loss
from kdbench.methods.dist.adapter import relations
from kdbench.methods.dkd.adapter import dkd_loss, others_divergence, target_divergence
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.lskd.adapter import standardized
from kdbench.methods.mlkd.adapter import correlation_losses, masks, prediction_loss
from kdbench.methods.nkd.adapter import others_loss, target_loss
from kdbench.methods.shared.logits import others, row_divergence
from kdbench.specs import registry
from kdbench.specs.config import run_config


def logits(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def task(classes):
    return SimpleNamespace(classes=classes, kind="classification", raw_shape={"image": (1, 8, 8)})


def built(name, classes):
    """The method's adapter on a stand-in of a task, without networks to read."""
    ref = registry.method(name)
    hp = ref.card.typed({**ref.card.defaults(), **(ref.variant.params if ref.variant else {})})
    net = torch.nn.Identity()
    net.input = "image"
    return ref.adapter()(task(classes), [net], {"image": net}, hp)


@pytest.mark.parametrize(("name", "least"), [("dkd", 2), ("nkd", 3), ("dist", 2), ("lskd", 2), ("mlkd", 2)])
def test_too_few_classes_are_refused_with_the_number_needed(name, least):
    with pytest.raises(NotApplicable, match=f"at least {least} classes, the task has {least - 1}"):
        built(name, least - 1)


def test_dkd_warns_of_two_classes_where_half_of_it_is_zero():
    for name in ("dkd", "dkd+energykd"):
        with pytest.warns(UserWarning, match="non-target part is 0"):
            built(name, 2)
    z = logits(4, 2)
    part = others_divergence(z, torch.randn(4, 2).double(), torch.tensor([0, 1, 1, 0]), 4.0)
    part.backward()
    assert part == 0
    assert not z.grad.any()


def test_dkd_parts_with_the_right_weights_are_the_whole_divergence():
    """KL = TCKD + (1 - teacher's target probability) NCKD, equation 6 of the paper, one row at a time."""
    student, teacher, y = torch.randn(5, 7).double(), torch.randn(5, 7).double(), torch.tensor([0, 3, 6, 2, 2])
    for row in range(5):
        s, t, of = student[row : row + 1], teacher[row : row + 1], y[row : row + 1]
        weight = 1 - F.softmax(t / 3.0, dim=1)[0, of].item()
        assert dkd_loss(s, t, of, 3.0, 1.0, weight) == pytest.approx(kd_loss(s, t, 3.0).item(), rel=1e-12)


@pytest.mark.parametrize("gap", [50.0, 200.0, 2000.0])
def test_dkd_stays_finite_for_opposite_gaps_between_logits(gap):
    """At T = 1 the target's divergence is the gap itself, where probabilities have long underflowed."""
    student = torch.tensor([[-gap / 2, gap / 2, 0.0]], requires_grad=True)
    teacher, y = -student.detach(), torch.tensor([0])
    loss = dkd_loss(student, teacher, y, 1.0, 1.0, 8.0)
    loss.backward()
    assert torch.isfinite(student.grad).all()
    assert target_divergence(student, teacher, y, 1.0).item() == pytest.approx(gap, rel=0.05)
    assert math.isfinite(loss.item())


def test_others_leaves_out_each_rows_own_class_in_order():
    z = torch.arange(12.0).view(3, 4)
    assert others(z, torch.tensor([0, 2, 3])).tolist() == [[1, 2, 3], [4, 5, 7], [8, 9, 10]]


def test_soft_labels_are_not_taken_for_classes():
    soft = torch.full((4, 5), 0.2)
    for loss in (lambda z: dkd_loss(z, z, soft, 4.0, 1.0, 8.0), lambda z: target_loss(z, z, soft)):
        with pytest.raises((RuntimeError, IndexError)):
            loss(torch.randn(4, 5))


def test_nkd_target_stays_at_temperature_one_and_others_do_not():
    student, teacher, y = torch.randn(4, 6).double(), torch.randn(4, 6).double(), torch.tensor([0, 1, 2, 3])
    shifted = student.scatter_add(1, y[:, None], torch.ones(4, 1).double())
    assert others_loss(student, teacher, y, 2.0) == others_loss(shifted, teacher, y, 2.0)
    assert target_loss(shifted, teacher, y) < target_loss(student, teacher, y)


@pytest.mark.parametrize("rows", [1, 4])
def test_dist_of_constant_rows_and_of_one_row_is_finite_and_states_its_value(rows):
    z = torch.zeros(rows, 5, requires_grad=True)
    inter, intra = relations(z, torch.randn(rows, 5), 2.0)
    (inter + intra).backward()
    assert inter.item() == pytest.approx(4.0)  # T^2 for no correlation
    assert intra.item() == pytest.approx(4.0)
    assert torch.isfinite(z.grad).all()


Y, TAU = torch.tensor([0, 4]), torch.tensor([[2.0], [4.0]])
ON_SCORES = {
    "kd": lambda s, t: kd_loss(s, t, 4.0),
    "dist": lambda s, t: relations(s, t, 4.0),
    "dkd": lambda s, t: dkd_loss(s, t, Y, 4.0, 1.0, 8.0),
    "dkd, target": lambda s, t: target_divergence(s, t, Y, 4.0),
    "dkd, others": lambda s, t: others_divergence(s, t, Y, 4.0),
    "nkd, target": lambda s, t: target_loss(s, t, Y),
    "nkd, others": lambda s, t: others_loss(s, t, Y, 1.0),
    "mlkd, rows": lambda s, t: prediction_loss([s, s], [t, t], [4.0], torch.ones(2)),
    "mlkd, classes": lambda s, t: correlation_losses(s, t, [4.0], torch.ones(2), torch.ones(7)),
    "energykd": lambda s, t: row_divergence(s, t, TAU),
    "ban": born_again_loss,
}


@pytest.mark.parametrize("name", ON_SCORES)
def test_numbers_of_classes_that_differ_are_named(name):
    with pytest.raises(ValueError, match=r"\(2, 5\) and teacher logits \(2, 7\)"):
        ON_SCORES[name](torch.randn(2, 5), torch.randn(2, 7))


def test_two_standardized_logits_say_only_which_is_larger():
    with pytest.warns(UserWarning, match="which is larger"):
        built("lskd", 2)
    assert torch.allclose(standardized(torch.tensor([[9.0, 1.0], [0.1, 0.2]])).abs(), torch.full((2, 2), 0.5**0.5))


def test_standardized_rows_do_not_know_shift_and_scale_and_equal_logits_are_zero():
    z = torch.randn(3, 9).double()
    assert torch.allclose(standardized(z), standardized(7 * z - 2), atol=1e-6)
    flat = torch.ones(2, 9, requires_grad=True)
    out = standardized(flat)
    out.square().sum().backward()
    assert not out.any()
    assert torch.isfinite(flat.grad).all()


def test_mlkd_masks_choose_rows_unless_they_only_scale():
    teacher = torch.randn(6, 5).double()
    rows, classes = masks(teacher, official_code=False)
    assert sorted(rows.tolist()) == [0, 0, 0, 1, 1, 1]
    assert sorted(classes.tolist()) == [0, 0, 1, 1, 1]
    sure = teacher.softmax(1).amax(1)
    assert sure[rows == 1].max() < sure[rows == 0].min()
    scaled, _ = masks(teacher, official_code=True)
    assert scaled.tolist() == [0.5] * 6


def test_mlkd_strong_view_counts_at_every_temperature_but_in_the_published_code():
    student = [logits(4, 5), logits(4, 5)]
    teacher = [torch.randn(4, 5).double() for _ in range(2)]
    nothing = torch.zeros(4).double()
    all_strong = prediction_loss(student, teacher, (1.0, 2.0, 3.0, 4.0), nothing)
    by_hand = sum(row_divergence(student[1], teacher[1], t).mean() for t in (1.0, 2.0, 3.0, 4.0))
    assert all_strong.item() == pytest.approx(by_hand.item())
    official = prediction_loss(student, teacher, (1.0, 2.0, 3.0, 4.0), nothing, official_code=True)
    (weak,) = torch.autograd.grad(official, student[0])
    assert weak.any()


def test_label_smoothing_is_refused_on_a_regression_and_smooths_labels():
    ref = registry.method("plain+ls")
    assert ref.variant.params == {"label_smoothing": 0.1}
    hp = ref.card.typed({**ref.card.defaults(), **ref.variant.params})
    assert ref.adapter().needs(hp).kinds == {"classification"}
    assert ref.adapter().needs(ref.card.typed(ref.card.defaults())).kinds is None
    z, y = torch.randn(3, 4), torch.tensor([0, 1, 2])
    net = torch.nn.Module()
    net.forward = lambda batch: SimpleNamespace(logits=z)
    (value,) = ref.adapter()(task(4), [net], {}, hp).losses(SimpleNamespace(y=y), None).values()
    smoothed = 0.9 * F.one_hot(y, 4) + 0.1 / 4
    assert value.item() == pytest.approx(-(smoothed * z.log_softmax(1)).sum(1).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "pair", "values"),
    [
        ("lskd", "vgg13-mobilenetv2", {"temperature": 3.0, "kd_weight": 9.0, "ce_weight": 0.1}),
        ("dkd+lskd", "resnet50-mobilenetv2", {"temperature": 2.0, "kd_weight": 15.0, "beta": 2.0, "ce_weight": 1.0}),
        ("dkd+lskd", "resnet56-resnet20", {"temperature": 3.0, "kd_weight": 18.0, "beta": 2.0}),
        ("dkd+lskd", "resnet32x4-shufflenetv1", {"temperature": 2.0, "kd_weight": 9.0, "beta": 2.0}),  # none published
        ("mlkd+lskd", "vgg13-vgg8", {"temperature": 2.0, "kd_weight": 6.0}),
        ("mlkd+lskd", "wrn_40_2-wrn_16_2", {"temperature": 2.0, "kd_weight": 9.0}),
        ("dkd+energykd", "vgg13-vgg8", {"beta": 6.0, "low_share": 0.1}),
        ("energykd-heda", "resnet56-resnet20", {"low_share": 0.0, "high_share": 0.4}),
    ],
)
def test_a_pairs_published_values_are_those_of_its_variant(name, pair, values):
    assert run_config(name, f"cifar100/{pair}").method.params.items() >= values.items()
