"""Pairing, pooling and normalisation of maps; connectors by size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdbench.base.errors import UserError
from kdbench.contract import NotApplicable
from kdbench.methods.shared.connectors import pointwise, regressor, sized_conv
from kdbench.methods.shared.matching import match, pair_stages, unit


def test_unit_is_f_normalize_and_zero_vectors_have_no_gradient():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(unit(x), F.normalize(x, dim=-1))
    with_zero = torch.cat([x.detach()[:1], torch.zeros(1, 5, dtype=torch.float64)]).requires_grad_()
    unit(with_zero).sum().backward()
    assert torch.equal(unit(with_zero)[1], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(with_zero.grad[1], torch.zeros(5, dtype=torch.float64))
    assert with_zero.grad[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("a", "b", "size"),
    [
        ((8, 8), (4, 4), (4, 4)),
        ((2, 2), (3, 3), (2, 2)),
        ((8, 4), (4, 8), (4, 4)),  # not square: the smaller on each axis
        ((8,), (4,), (4,)),
        ((8,), (8, 8), (8, 1)),  # a series beside an image
        ((4, 8, 8), (2, 4, 4), (2, 4, 4)),
    ],
)
def test_match_pools_the_larger_map_before_anything_else(a, b, size):
    s, t = match(torch.randn(2, 3, *a), torch.randn(2, 5, *b))
    assert s.shape == (2, 3, *size)
    assert t.shape == (2, 5, *size)


def test_windows_are_those_of_adaptive_pooling():
    x, y = torch.randn(2, 3, 8, 6), torch.randn(2, 3, 4, 3)
    assert torch.allclose(match(x, y)[0], F.adaptive_avg_pool2d(x, (4, 3)))


def test_stage_lists_of_unequal_length_are_refused_unless_chosen():
    student, teacher = [torch.zeros(1, 1, 2, 2)] * 3, [torch.zeros(1, 1, 2, 2)] * 4
    with pytest.raises(NotApplicable, match="3 student stages and 4 teacher stages"):
        pair_stages(student, teacher)
    with pytest.raises(NotApplicable, match="2 student stages and 4"):
        pair_stages(student, teacher, student_stages=(1, 2))
    with pytest.raises(UserError, match="name 1 student stages and 2"):
        pair_stages(student, teacher, (1,), (1, 2))
    with pytest.raises(UserError, match="student_stages names stage 4; the student has stages 1 to 3"):
        pair_stages(student, teacher, (1, 4), (1, 2))


def test_chosen_stages_are_counted_from_one_and_teachers_are_constants():
    maps = [torch.full((1, 1, 2, 2), float(i), requires_grad=True) for i in range(4)]
    pairs = pair_stages(maps[:3], maps, (1, 3), (2, 4))
    assert [(s.mean().item(), t.mean().item()) for s, t in pairs] == [(0.0, 1.0), (2.0, 3.0)]
    assert all(s.requires_grad and not t.requires_grad for s, t in pairs)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel"),
    [
        ((8, 8), (4, 4), (3, 3)),
        ((2, 2), (1, 1), (3, 3)),  # the first rule that fits wins
        ((3, 3), (6, 6), (4, 4)),
        ((5, 5), (5, 5), (1, 1)),
        ((9, 9), (5, 5), (5, 5)),
        ((8, 4), (4, 4), (3, 1)),
        ((4, 4), (8, 4), (4, 1)),
        ((8,), (4,), (3,)),
        ((2, 8, 8), (1, 4, 4), (3, 3, 3)),
    ],
)
def test_regressor_gives_the_teachers_shape(student, teacher, kernel):
    module = regressor((3, *student), (7, *teacher), torch.nn.ReLU())
    assert module.conv.kernel_size == kernel
    out = module(torch.randn(4, 3, *student))
    assert out.shape == (4, 7, *teacher)
    assert out.min() == 0


@pytest.mark.parametrize(("student", "teacher"), [((2, 2), (8, 8)), ((5, 5), (9, 9)), ((8, 4), (4, 8))])
def test_sizes_without_a_rule_are_named(student, teacher):
    with pytest.raises(ValueError, match=f"{student[0]}x{student[1]} to maps of {teacher[0]}x{teacher[1]}"):
        sized_conv((3, *student), (7, *teacher))


def test_pointwise_has_no_bias():
    module = pointwise(3, 7)
    assert module.conv.bias is None
    assert module(torch.randn(2, 3, 4, 4)).shape == (2, 7, 4, 4)
