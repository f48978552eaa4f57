"""simkd: what is deployed, what is trained, which teachers serve."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kdbench import models
from kdbench.contract import Batch, NotApplicable
from kdbench.methods.simkd.adapter import Projector, SimKD, feature_loss

HP = SimpleNamespace(factor=2, feature_weight=1.0)


def batch(rows=4, size=32):
    return Batch({"image": torch.randn(rows, 3, size, size)}, torch.zeros(rows, dtype=torch.long), torch.arange(rows))


def task(size=32):
    def probe(net):
        with torch.no_grad():
            return net.eval()(batch(2, size))

    return SimpleNamespace(
        device=torch.device("cpu"), classes=10, probe=probe, rows=lambda index: None, wrap=lambda raw: batch(2, size)
    )


def built(student, teacher, precision=None):
    nets = [models.build(net, (3, 32, 32), 10, input_name="image") for net in (student, teacher)]
    for net in nets:
        net.autocast = precision
    return SimKD(task(), [nets[0]], {"image": nets[1].requires_grad_(False)}, HP)


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet14"), ("wrn_16_1", "wrn_16_2"), ("resnet8", "wrn_16_1")]
)
def test_a_projection_equal_to_the_teachers_map_gives_the_teachers_scores(student, teacher):
    """Whatever map is the target, pooling and classifying it is what the teacher itself does."""
    method, rows = built(student, teacher), batch()
    target = method.teacher.eval()(rows)
    method.net.projector.forward = lambda x: method._target(target)
    assert torch.allclose(method.deployed(rows).logits, target.logits, atol=1e-5)


@pytest.mark.parametrize("teacher", ["resnet14", "wrn_16_2"])
def test_a_teacher_that_computes_in_bf16_is_known_all_the_same(teacher):
    method = built("resnet8", teacher, torch.bfloat16)
    assert method.losses(batch(), None)["feature"].isfinite()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_teacher_with_a_convolution_before_its_classifier_is_refused(precision):
    with pytest.raises(NotApplicable, match="cannot be reused"):
        built("resnet8", "mobilenetv2", precision)


@pytest.mark.parametrize("student", ["resnet8", "mobilenetv2", "wrn_16_1", "shufflenetv2"])
def test_what_follows_the_students_last_map_is_gone_and_all_that_is_left_is_trained(student):
    method = built(student, "resnet14")
    (group,) = method.groups()
    method.losses(batch(), None)["feature"].backward()
    assert all(p.grad is not None for p in group.params)
    kept = {id(p) for p in group.params} | {id(p) for p in method.net.reused.parameters()}
    assert kept == {id(p) for p in method.deployed.parameters()}
    assert not any(p is q for p in group.params for q in method.net.reused.parameters())
    assert not any(isinstance(m, torch.nn.Linear) for m in method.net.trunk.modules())
    assert method.deployed.eval()(batch()).logits.shape == (4, 10)


def test_the_last_map_is_what_it_was_before_layers_were_taken_off():
    """An in-place activation behind a layer that is gone must not reach the map."""
    student = models.build("mobilenetv2", (3, 32, 32), 10, input_name="image").eval()
    student.trunk.head[1].inplace = True
    rows = batch()
    expected = student(rows).maps[-1]
    method = SimKD(task(), [student], {"image": models.build("resnet14", (3, 32, 32), 10).eval()}, HP)
    assert torch.equal(method.net.trunk.eval()(rows).maps[-1], expected)


def test_a_mobilenet_without_its_last_convolution_is_smaller_than_plain():
    plain = models.build("mobilenetv2", (3, 32, 32), 10, input_name="image")
    kept = built("mobilenetv2", "resnet14").net.trunk
    last_convolution_and_classifier = 160 * 1280 + 2 * 1280 + 1280 * 10 + 10
    counts = [sum(p.numel() for p in net.parameters()) for net in (plain, kept)]
    assert counts[0] - counts[1] == last_convolution_and_classifier


def test_the_smaller_map_decides_the_size_of_the_comparison():
    small = Projector((5, 4, 4), (12, 8, 8), 4)
    out = small(torch.randn(3, 5, 4, 4))
    assert out.shape == (3, 12, 4, 4)
    assert feature_loss(out, torch.randn(3, 12, 8, 8)).ndim == 0
    assert Projector((5, 8, 8), (12, 4, 4), 4)(torch.randn(3, 5, 8, 8)).shape == (3, 12, 4, 4)
