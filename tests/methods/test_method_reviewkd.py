"""reviewkd: what the golden vectors leave out (sheet, section 10), misuse (section 9), sizes (section 7)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import method_config, tiny
from kdbench.contract import At, NotApplicable, Out
from kdbench.engine.assemble import hyper_parameters
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.reviewkd.adapter import ABF, ReviewKD, hcl, level_means, review
from kdbench.specs import registry

HP = registry.card("reviewkd").typed(registry.card("reviewkd").defaults())


def at(epoch: int) -> At:
    return At(0, epoch, 240, epoch / 240, torch.Generator())


def checkerboard(height: int, width: int) -> torch.Tensor:
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (1.0 - 2.0 * ((rows + cols) % 2)).double()[None, None]


@pytest.mark.parametrize(("side", "denominator"), [(1, 1.0), (2, 1.5), (4, 1.75), (8, 1.875)])
def test_a_difference_that_pooling_cancels_is_divided_by_the_weights(side, denominator):
    difference = 3 * checkerboard(side, side)
    assert float(hcl(difference, torch.zeros_like(difference))) == pytest.approx(9 / denominator)


def pooled(x: torch.Tensor, side: int) -> torch.Tensor:
    """Adaptive average pooling written out: bin i of n covers floor(i n / side) up to ceil((i + 1) n / side)."""

    def bins(n):
        return [slice(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]

    height, width = x.shape[2:]
    rows = [torch.stack([x[:, :, r, c].mean((2, 3)) for c in bins(width)], -1) for r in bins(height)]
    return torch.stack(rows, -2)


@pytest.mark.parametrize(
    ("height", "width", "levels"), [(6, 3, [4, 2, 1]), (3, 6, [2, 1]), (3, 7, [2, 1]), (5, 1, [4, 2, 1]), (1, 5, [])]
)
def test_only_the_height_decides_which_levels_are_compared(height, width, levels):
    student, teacher = torch.randn(2, 3, 5, height, width, dtype=torch.float64)
    weights = [2.0**-i for i in range(len(levels) + 1)]
    parts = [(student - teacher).square().mean()]
    parts += [(pooled(student, side) - pooled(teacher, side)).square().mean() for side in levels]
    expected = sum(w * part for w, part in zip(weights, parts, strict=True)) / sum(weights)
    assert float(hcl(student, teacher)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("level", [4, 2, 1])
def test_pooling_in_equal_windows_is_torchs_to_the_bit_and_so_is_its_gradient(level):
    x = torch.randn(2, 3, 8, 12, requires_grad=True)
    weight = torch.randn(2, 3, level, level)
    found, expected = level_means(x, level), F.adaptive_avg_pool2d(x, level)
    assert torch.equal(found, expected)
    own, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected))
    assert torch.equal(own, theirs)
    assert "AdaptiveAvgPool" not in type(found.grad_fn).__name__, "torch's gradient is not deterministic on CUDA"


def test_maps_of_other_shapes_are_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 3, 1, 1\)"):
        hcl(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1))


def passing(fuse: bool) -> ABF:
    """A fusion module of one channel that passes its input on; with ``fuse`` the deeper map instead."""
    abf = ABF(1, 1, 1, fuse).double().eval()
    torch.nn.init.ones_(abf.conv1.weight)
    for norm in (abf.bn1, abf.bn2):
        norm.eps = 0.0
    if abf.att is not None:
        torch.nn.init.zeros_(abf.att.weight)
        abf.att.bias.data = torch.tensor([-1e3, 1e3], dtype=torch.float64)
    return abf


def test_the_fused_map_is_resized_twice():
    deep = torch.arange(4, dtype=torch.float64).view(1, 1, 2, 2)
    _, fused = passing(fuse=False)(deep, None, torch.Size([5, 5]))
    _, shallow = passing(fuse=True)(torch.zeros(1, 1, 4, 4, dtype=torch.float64), fused, torch.Size([4, 4]))
    source = torch.tensor([0, 0, 0, 1])  # 2 -> 5 -> 4; directly it would be 0, 0, 1, 1
    assert torch.equal(shallow[0, 0], deep[0, 0][source][:, source])


def test_review_runs_from_deep_to_shallow():
    modules = [passing(fuse=True), passing(fuse=True), passing(fuse=False)]
    for abf in modules:
        torch.nn.init.zeros_(abf.conv2.weight)
        abf.conv2.weight.data[:, :, 1, 1] = 1.0
    student = [torch.full((1, 1, n, n), float(n), dtype=torch.float64) for n in (4, 2, 1)]
    outputs = review(modules, student, [torch.zeros(1, 1, n, n) for n in (8, 4, 1)])
    assert [tuple(o.shape[2:]) for o in outputs] == [(8, 8), (4, 4), (1, 1)]
    assert all(bool((o == 1).all()) for o in outputs)  # every stage shows the deepest map


def test_both_convolutions_start_uniform_within_the_square_root_of_three_over_fan_in():
    abf = ABF(64, 32, 48, fuse=True)
    for conv, fan_in in ((abf.conv1, 64), (abf.conv2, 9 * 32)):
        assert conv.bias is None
        assert float(conv.weight.detach().abs().max()) == pytest.approx((3 / fan_in) ** 0.5, rel=0.02)
    assert (tuple(abf.att.weight.shape), abf.att.bias is not None) == ((2, 64, 1, 1), True)


def at_rest(student: str, teacher: str, **hp: object) -> ReviewKD:
    """The method on two nets of the zoo for 32x32 images."""
    nets = [models.build(name, (3, 32, 32), 100).eval() for name in (student, teacher)]

    def probe(net):
        with torch.no_grad():
            return net.encode(torch.zeros(2, 3, 32, 32))

    task = SimpleNamespace(kind="classification", probe=probe)
    return ReviewKD(task, nets[:1], {"image": nets[1]}, replace(HP, **hp))


@pytest.mark.parametrize(
    ("student", "teacher", "params"),
    [
        ("resnet8x4", "resnet32x4", 1_808_774),
        ("resnet20", "resnet56", 114_278),
        ("resnet32", "resnet110", 114_278),
        ("wrn_16_2", "wrn_40_2", 453_830),
        ("wrn_40_1", "wrn_40_2", 216_006),
        ("shufflenetv1", "wrn_40_2", 2_984_646),
        ("shufflenetv1", "resnet32x4", 4_607_366),
        ("shufflenetv2", "resnet32x4", 4_195_718),
        ("resnet18", "resnet34", 7_552_904),
    ],
)
def test_fusion_modules_have_the_published_number_of_parameters(student, teacher, params):
    method = at_rest(student, teacher)
    assert sum(p.numel() for p in method.abfs.parameters()) == params


def test_the_deepest_module_alone_has_no_attention():
    assert [abf.att is not None for abf in at_rest("resnet20", "resnet56").abfs] == [True, True, True, False]


def test_the_width_is_at_most_the_deepest_students():
    assert at_rest("resnet20", "resnet56").abfs[0].conv1.out_channels == 64
    assert at_rest("resnet20", "resnet56", mid_channels=24).abfs[0].conv1.out_channels == 24


def stages(*sizes: int) -> Out:
    maps = tuple(torch.zeros(2, 4, n, n) for n in sizes)
    return Out(torch.zeros(2, 3), maps, maps, None, torch.zeros(2, 4))


@pytest.mark.parametrize(("student", "teacher"), [((8, 4, 2, 1), (8, 4, 2)), ((8, 4), (8, 4, 2))])
def test_other_numbers_of_stages_are_refused(student, teacher):
    outs = {"student": stages(*student), "teacher": stages(*teacher)}
    nets = {name: Named(name) for name in outs}
    task = SimpleNamespace(kind="classification", probe=lambda net: outs[net.name])
    with pytest.raises(NotApplicable, match=f"{len(student)} student stages and {len(teacher)} teacher stages"):
        ReviewKD(task, [nets["student"]], {"image": nets["teacher"]}, HP)


def test_stages_to_pair_can_be_named():
    outs = {"student": stages(8, 4, 2, 1), "teacher": stages(8, 4, 2)}
    nets = {name: Named(name) for name in outs}
    task = SimpleNamespace(kind="classification", probe=lambda net: outs[net.name])
    hp = SimpleNamespace(**{**vars(HP), "student_stages": (2, 3, 4)})
    assert len(ReviewKD(task, [nets["student"]], {"image": nets["teacher"]}, hp).abfs) == 4
    wrong = SimpleNamespace(**{**vars(HP), "student_stages": (2, 5)})
    with pytest.raises(UserError, match="student has stages 1 to 4"):
        ReviewKD(task, [nets["student"]], {"image": nets["teacher"]}, wrong)


def test_the_authors_teacher_mode_is_a_variant():
    ref = registry.method("reviewkd-batchnorm")
    hp = SimpleNamespace(**{**vars(HP), **ref.variant.params})
    assert ReviewKD.needs(hp).teacher_batchnorm == "batch"
    assert ReviewKD.needs(HP).teacher_batchnorm == "eval"


class Named(torch.nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def test_the_divergence_needs_class_scores():
    with pytest.raises(NotApplicable, match=r"set method\.kl_weight=0"):
        ReviewKD(SimpleNamespace(kind="regression"), [Named("s")], {}, replace(HP, kl_weight=1.0))


@pytest.fixture
def method(tmp_path):
    """The method on a tiny task, ramp over 20 epochs."""
    ref = registry.method("reviewkd")
    config = method_config(ref)
    made = tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), "classification").prepare(tmp_path).method
    made.hp = replace(made.hp, warmup_epochs=20)
    return made


def batch_of(method, rows=16):
    return method.task.wrap(method.task.rows(torch.arange(rows)))


def test_the_ramp_weighs_the_review_loss_alone(method):
    method.hp = replace(method.hp, kl_weight=2.0)
    batch = batch_of(method)
    half, whole = method.losses(batch, at(10)), method.losses(batch, at(20))
    assert float(half["review"]) == pytest.approx(0.5 * float(whole["review"]))
    assert torch.equal(half["task"], whole["task"])
    assert torch.equal(half["kl"], whole["kl"])
    out, target = method.student(batch), method.teacher(batch)
    assert torch.equal(half["task"], F.cross_entropy(out.logits, batch.y))
    assert torch.equal(half["kl"], 2.0 * kd_loss(out.logits, target.logits, 4.0))


@pytest.mark.parametrize(("weight", "epoch"), [(0.0, 30), (5.0, 0)], ids=["no weight", "first epoch"])
def test_without_weight_the_total_is_the_task_loss_and_fusion_gets_zero_gradients(method, weight, epoch):
    method.hp = replace(method.hp, review_weight=weight)
    terms = method.losses(batch_of(method), at(epoch))
    total = torch.stack(list(terms.values())).sum()
    assert torch.equal(total, terms["task"])
    total.backward()
    assert all(bool((p.grad == 0).all()) for p in method.abfs.parameters())


def test_one_row_is_enough_to_score_but_not_to_train(method):
    assert method.needs(method.hp).min_batch == 2
    one = batch_of(method, rows=1)
    assert method.eval().losses(one, at(30))["review"].isfinite()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        method.train().losses(one, at(30))


def test_a_single_class_leaves_the_review_loss(method):
    batch = batch_of(method)
    out = method.student(batch)
    assert float(F.cross_entropy(out.logits[:, :1], torch.zeros_like(batch.y))) == 0
    assert method.losses(batch, at(30))["review"] > 0


def test_the_teacher_gets_no_gradient_even_if_someone_unfreezes_it(method):
    method.teacher.requires_grad_(True)
    method.hp = replace(method.hp, kl_weight=1.0)
    torch.stack(list(method.losses(batch_of(method), at(30)).values())).sum().backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_needs_follow_the_hyper_parameters():
    assert "maps" in ReviewKD.needs(HP).student
    assert "preact" in ReviewKD.needs(replace(HP, student_features="preact")).student
    assert "logits" not in ReviewKD.needs(HP).teacher
    assert "logits" in ReviewKD.needs(replace(HP, kl_weight=1.0)).teacher
