"""A student cut out of its teacher: which channels stay, what they compute, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kdbench import identity, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.models.pruning import cut, largest, pairs
from kdbench.models.weights import load_pruned
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config

SHAPE = (1, 8, 8)


def net(name: str, shape: tuple[int, ...] = SHAPE, outputs: int = 5) -> nn.Module:
    torch.manual_seed(len(name))
    return models.build(name, shape, outputs).eval()


def test_the_largest_filters_stay_in_their_order() -> None:
    weight = torch.tensor([1.0, -4.0, 3.0, -3.0, 0.0]).view(5, 1, 1, 1)
    assert largest(weight, 2).tolist() == [1, 2]  # of equals the first
    assert largest(weight, 3).tolist() == [1, 2, 3]


def test_a_cut_net_computes_what_its_channels_did() -> None:
    """The whole net with all that was left out set to 0 gives the same scores."""
    whole, own = net("convnet_w8"), net("convnet_w4")
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.1, 0.1)
    load_pruned(own, whole)
    for pair in pairs(own, whole):
        gone = torch.ones(len(pair.whole.norm.weight), dtype=torch.bool)
        gone[pair.kept] = False
        with torch.no_grad():
            pair.whole.norm.weight[gone] = 0
            pair.whole.norm.bias[gone] = 0
    x = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(own.encode(x).logits, whole.encode(x).logits, atol=1e-5)


def test_a_net_of_its_own_width_is_the_same_net() -> None:
    whole, own = net("convnet1d_w4", (1, 16)), net("convnet1d_w4", (1, 16))
    nn.init.normal_(own.fc.weight)
    classifier = own.fc.weight.clone()
    load_pruned(own, whole, features=True)
    assert torch.equal(own.fc.weight, classifier)
    load_pruned(own, whole)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in own.state_dict().items())


@pytest.mark.parametrize(
    ("own", "whole", "reason"),
    [
        (net("convnet_w8"), net("convnet_w4"), "layer 1 has 8 channels, more than the 4"),
        (net("resnet8", (1, 8, 8)), net("convnet_w4"), "ResNet is no chain of convolutions|Resnet is no chain"),
        (net("vgg8", (1, 32, 32)), net("convnet_w4"), r"5 layers \(Vgg\) cannot be one of 3 \(ConvNet\)"),
        (net("convnet_w4", (3, 8, 8)), net("convnet_w8"), "its weights would not fit .*read one input"),
        (net("convnet_w4", outputs=7), net("convnet_w8"), "its weights would not fit .*as many outputs"),
    ],
)
def test_what_cannot_be_cut_is_one_line(own: nn.Module, whole: nn.Module, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        cut(own, whole)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("pair.student.weights='pruned:audio'", r"pruned:audio names no teacher of the pair.*teachers are image"),
        ("pair.teachers.image.weights='pruned:image'", "is for the student: a teacher is cut out of no other"),
        ("pair.teachers.image.init='pruned:image'", "is for the student: a teacher is cut out of no other"),
    ],
)
def test_wrong_roles_are_one_line(override: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        run_config("plain", "digits/pruned", [override])


def test_a_student_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    config = run_config("plain", "digits/pruned", ["pair.student.net=convnet_w64"], smoke=True)
    with pytest.raises(UserError, match="layer 1 has 64 channels, more than the 32"):
        run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))


def test_the_teacher_decides_the_runs_of_plain_too(tmp_path: Path) -> None:
    """Plain reads no teacher, but starts from one: its record names it, and its identity holds its net."""
    config = run_config("plain", "digits/pruned", smoke=True)
    assert set(identity.of(config).nets) == {"convnet_w16", "convnet_w32"}
    record = run.run_seed(Request(config, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert record.status == "ok", record.error
    (teacher,) = record.models.teachers
    assert teacher.arch == "convnet_w32"
    assert record.models.student.weights_sha256 is not None
    assert "few_sample" in registry.methods()
    other = run_config("few_sample", "digits/few-shot", smoke=True)
    refused = run.run_seed(Request(other, 0, torch.device("cpu"), Home(tmp_path), overhead="off"))
    assert refused.status == "not_applicable"
    assert "student has to be its teacher with channels left out" in refused.error.message
