"""Fragile spots of the feature methods: fitnet, at, vid, ab, ft, nst, fsp."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kdbench import models
from kdbench.contract import At, Batch, Network, NotApplicable, Out
from kdbench.methods.ab.adapter import boundary_losses
from kdbench.methods.at.adapter import attention_loss
from kdbench.methods.fitnet.adapter import hint_loss
from kdbench.methods.fsp.adapter import flow, flow_losses
from kdbench.methods.ft.adapter import factor_loss
from kdbench.methods.nst.adapter import selectivity_loss
from kdbench.methods.shared.connectors import regressor
from kdbench.methods.vid.adapter import FLOOR, Gaussian, information_loss, raw_scale
from kdbench.specs import registry

AT = At(0, 0, 8, 0.0, torch.Generator())


class FakeTask:
    """As much of a task as these methods ask for."""

    kind = "classification"
    epochs = 8

    def __init__(self, size: int = 32, rows: int = 4, **inputs: tuple[int, ...]) -> None:
        shapes = {"image": (3, size, size), **inputs}
        x = {name: torch.randn(rows, *shape) for name, shape in shapes.items()}
        self.batch = Batch(x, torch.arange(rows) % 3, torch.arange(rows))

    def loss(self, out: Out, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(out.logits, batch.y)

    def probe(self, net: nn.Module) -> Out:
        net.eval()
        with torch.no_grad():
            out = net(self.batch.view(0))
        net.train()
        return out

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


class OneMap(Network):
    """A network with one map of a given size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def encode(self, x: torch.Tensor) -> Out:
        return Out(torch.zeros(len(x), 3), (torch.zeros(len(x), 4, self.size, self.size),))


def build(name, student="resnet8", teacher="resnet14", task=None, **params):
    """A method by name on two nets of the zoo, as (method, task)."""
    task = task or FakeTask()
    shape = tuple(task.batch.x["image"].shape[1:])
    nets = [net if isinstance(net, Network) else models.build(net, shape, 3) for net in (student, teacher)]
    nets[1].eval().requires_grad_(False)
    ref = registry.method(name)
    hp = ref.card.typed({**ref.card.defaults(), **(ref.variant.params if ref.variant else {}), **params})
    return ref.adapter()(task, nets[:1], {"image": nets[1]}, hp), task


@pytest.mark.parametrize(
    ("name", "extra"),
    [("fitnet", 16_768), ("at", 0), ("vid", 258_496), ("nst", 0), ("ft", 1_033_728 + 2_065_536), ("cc", 65_792)],
)
def test_extra_parameters_are_those_of_the_official_modules(name, extra):
    method, _ = build(name, "resnet8x4", "resnet32x4")
    own = sum(p.numel() for p in method.parameters()) - sum(p.numel() for p in method.student.parameters())
    assert own == extra


@pytest.mark.parametrize("name", ["at", "vid", "nst", "ab"])
def test_unequal_numbers_of_stages_are_refused_unless_chosen(name):
    with pytest.raises(NotApplicable, match="3 student stages and 4 teacher stages"):
        build(name, "resnet8", "vgg8")
    method, task = build(name, "resnet8", "vgg8", student_stages=[2, 3], teacher_stages=[1, 2])
    first = next(iter(method.stages()))
    assert all(torch.isfinite(term) for term in first.losses(task.batch, AT).values())


def test_hint_stage_is_the_second_and_must_be_there():
    method, task = build("fitnet")
    out = task.probe(method.student)
    assert method.regressor.conv.in_channels == out.maps[1].shape[1]
    with pytest.raises(NotApplicable, match=r"hint stage 4 is not there.* 3"):
        build("fitnet", hint_stage=4)


@pytest.mark.parametrize(("student", "teacher"), [(2, 8), (5, 9)])
def test_hint_of_sizes_without_a_rule_names_both(student, teacher):
    with pytest.raises(NotApplicable, match=f"{student}x{student} to maps of {teacher}x{teacher}"):
        build("fitnet", OneMap(student), OneMap(teacher), hint_stage=1)


def test_regressed_hints_cannot_reach_negative_targets():
    module = regressor((3, 4, 4), (5, 4, 4), nn.ReLU())
    target = -torch.ones(4, 5, 4, 4)
    assert hint_loss(module(torch.randn(4, 3, 4, 4)), target) >= 1


def test_attention_of_a_zero_map_is_zero_with_zero_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_loss(student, torch.rand(2, 5, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(1 / 16)  # a unit vector against 0, mean over positions
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_attention_pools_before_the_power():
    x = torch.tensor([[[[4.0, 0.0, 1.0, 1.0]] * 4]])
    pooled = nn.functional.avg_pool2d(x, 2)
    assert attention_loss(x, pooled).item() == pytest.approx(0, abs=1e-12)
    assert attention_loss(x.square(), pooled.square(), power=1.0).item() > 1e-3


def test_attention_takes_absolute_values_and_any_channels():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 7, 4, 4)
    assert torch.equal(attention_loss(student, teacher, 3.0), attention_loss(-student, teacher, 3.0))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_attention_after_a_relu_is_that_of_plain_powers_gradient_included(power):
    student = torch.randn(2, 3, 4, 4).relu().requires_grad_()
    teacher = torch.randn(2, 5, 4, 4).relu()
    maps = [nn.functional.normalize(x.pow(power).mean(1).flatten(1)) for x in (student, teacher)]
    (expected,) = torch.autograd.grad((maps[0] - maps[1]).square().mean(), student)
    (found,) = torch.autograd.grad(attention_loss(student, teacher, power), student)
    assert torch.allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("loss", [attention_loss, factor_loss, selectivity_loss])
def test_maps_that_are_not_square_are_pooled_axis_by_axis(loss):
    student = torch.randn(2, 3, 8, 4, requires_grad=True)
    value = loss(student, torch.randn(2, 5, 4, 2))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_variance_starts_as_said_and_never_overflows():
    gaussian = Gaussian(3, 5, 5.0)
    variance = gaussian(torch.randn(2, 3, 4, 4))[1]
    assert variance.flatten().tolist() == pytest.approx([5.0] * 5)
    assert raw_scale(5.0) == pytest.approx(math.log(math.exp(5 - FLOOR) - 1))
    gaussian.log_scale.data.fill_(200.0)  # exp would overflow in float32
    loss = information_loss(gaussian, torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(gaussian.log_scale.grad).all()


def test_information_can_be_negative_and_is_bounded_by_the_floor():
    gaussian = Gaussian(1, 1, 5.0)
    gaussian.log_scale.data.fill_(-200.0)
    for p in (gaussian.conv0, gaussian.conv1, gaussian.conv2):
        nn.init.zeros_(p.weight)
    loss = information_loss(gaussian, torch.randn(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    assert loss.item() == pytest.approx(0.5 * math.log(FLOOR))


def test_variances_are_trained():
    method, task = build("vid")
    method.losses(task.batch, AT)["information"].backward()
    assert all(gaussian.log_scale.grad.abs().sum() > 0 for gaussian in method.gaussians)


def test_boundary_targets():
    teacher = torch.tensor([[2.0, 0.0, -3.0]]).reshape(1, 3, 1, 1)
    student = torch.tensor([[1.0, -1.0, -2.0]]).reshape(1, 3, 1, 1)
    assert boundary_losses([student], [teacher], 1.0)[0] == 0  # on the margin or beyond; 0 counts as inactive
    loss = boundary_losses([student.zero_()], [teacher], 1.0)[0]
    assert loss.item() == pytest.approx(3 / 1000 * 3)
    shallow, deep = boundary_losses([student, student], [teacher, teacher], 1.0)
    assert deep.item() == pytest.approx(2 * shallow.item())


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_first_phase_trains_trunk_alone_and_second_the_task_alone(name):
    method, task = build(name, "resnet8", "resnet14")
    first, second = method.stages()
    assert (first.epochs, second.epochs) == (1, 8)
    assert first.groups[0].schedule == "constant"
    assert "task" not in first.losses(task.batch, AT)
    torch.stack(list(first.losses(task.batch, AT).values())).sum().backward()
    assert method.student.classifier.weight.grad is None
    assert method.student.stem[0].conv.weight.grad.abs().sum() > 0
    assert list(second.losses(task.batch, AT)) == ["task"]
    assert {id(p) for p in second.groups[0].params} == {id(p) for p in method.student.parameters()}


def test_connectors_stand_only_where_shapes_differ():
    method, _ = build("ab", "resnet8", "resnet14")
    assert all(isinstance(c, nn.Identity) for c in method.connectors)
    method, _ = build("ab", "resnet8", "wrn_16_2")
    assert [c.conv.out_channels for c in method.connectors] == [32, 64, 128]


def test_factors_of_maps_of_one_position_are_refused():
    with pytest.raises(NotApplicable, match="one position"):
        build("ft", "convnet_w2", "convnet_w4", task=FakeTask(size=4))
    assert factor_loss(torch.rand(2, 3, 1, 1), torch.rand(2, 5, 1, 1)) == 0


def test_paraphraser_learns_first_and_is_frozen_then():
    method, task = build("ft")
    first, second = method.stages()
    assert first.once
    assert (first.epochs, second.epochs) == (1, 8)
    assert first.groups[0].optimizer == {"lr": 0.01}
    assert {id(p) for p in first.groups[0].params} == {id(p) for p in method.paraphraser.parameters()}
    assert not {id(p) for p in second.groups[0].params} & {id(p) for p in method.paraphraser.parameters()}
    method.losses(task.batch, AT)["factor"].backward()
    assert all(p.grad is None for p in method.paraphraser.parameters())
    assert all(p.grad is not None for p in method.translator.parameters())
    method.reconstruction(task.batch, AT)["reconstruction"].backward()
    assert all(p.grad is not None for p in method.paraphraser.parameters())


def test_selectivity_of_equal_maps_is_zero_and_channels_may_differ():
    x = torch.rand(2, 3, 4, 4)
    assert selectivity_loss(x, x).item() == pytest.approx(0, abs=1e-6)
    assert selectivity_loss(x.repeat(1, 2, 1, 1), x).item() == pytest.approx(0, abs=1e-6)
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    selectivity_loss(dead, x).backward()
    assert torch.equal(dead.grad, torch.zeros_like(dead))


def test_flow_needs_equal_channels_and_names_them():
    with pytest.raises(ValueError, match=r"the student's are \[2, 3\], the teacher's \[2, 4\]"):
        flow_losses([torch.rand(2, c, 4, 4) for c in (2, 3)], [torch.rand(2, c, 4, 4) for c in (2, 4)])
    with pytest.raises(NotApplicable, match="flow matrices need equal channels"):
        build("fsp", "wrn_40_1", "wrn_40_2")


def test_flow_counts_the_stem_and_pools_within_a_network():
    method, task = build("fsp")
    maps, _ = method._maps(task.probe(method.student), task.probe(method.teacher))
    assert len(maps) == 4
    assert flow(torch.ones(2, 3, 8, 8), torch.ones(2, 5, 4, 4)).tolist() == torch.ones(2, 3, 5).tolist()


@pytest.mark.parametrize("name", ["fitnet+kd", "at+kd", "sp+kd", "vid+kd", "cc+kd", "pkt+kd", "rkd+kd"])
def test_variants_add_the_divergence_and_leave_regression_out(name):
    method, task = build(name)
    assert list(method.losses(task.batch, AT))[:2] == ["task", "kd"]
    assert method.needs(method.hp).kinds == {"classification"}
    assert "logits" in method.needs(method.hp).teacher


@pytest.mark.parametrize("name", ["fitnet", "at", "vid", "ab", "ft", "nst", "fsp"])
@pytest.mark.parametrize(("net", "shape"), [("convnet1d_w4", (2, 16)), ("r2plus1d_tiny", (3, 4, 16, 16))])
def test_series_and_clips_work_as_images_do(name, net, shape):
    nets = [models.build(net, shape, 3, input_name="other") for _ in range(2)]
    method, task = build(name, *nets, task=FakeTask(other=shape))
    own = method.imitation(method.student(task.batch), method.teacher(task.batch))
    torch.stack(list(own.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in method.student.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["at", "vid", "nst", "ft"])
def test_a_series_can_imitate_an_image(name):
    student = models.build("convnet1d_w4", (2, 16), 3, input_name="other")
    method, task = build(name, student, "convnet_w8", task=FakeTask(other=(2, 16)))
    stages = list(method.stages())
    assert all(torch.isfinite(term) for stage in stages for term in stage.losses(task.batch, AT).values())
