"""timm nets behind one output."""

from __future__ import annotations

import pytest
import timm
import torch

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import NotApplicable
from kdbench.models.stages import stage_points
from kdbench.models.work import TIMM

torch.set_num_threads(1)

# timm name, input, number of stages, whether there is a stem
NETS = [
    ("test_resnet", (3, 32, 32), 4, True),
    ("test_vit", (1, 32, 32), 4, False),
    ("test_convnext", (3, 64, 64), 4, False),
    ("test_efficientnet", (2, 64, 64), 4, True),
    ("resnet18", (1, 32, 32), 4, True),
]
SLOW = [
    ("vit_tiny_patch16_224", (3, 64, 64), 4, False),
    ("convnext_atto", (3, 64, 64), 4, False),
    ("swin_tiny_patch4_window7_224", (3, 64, 64), 4, False),
    ("densenet121", (3, 64, 64), 4, True),
    ("mobilenetv1_100", (3, 64, 64), 4, True),
    ("vgg13_bn", (3, 224, 224), 4, True),
    ("mobilenetv3_small_050", (3, 64, 64), 4, True),
]


@pytest.mark.parametrize(
    ("name", "shape", "stages", "stem"), NETS + [pytest.param(*net, marks=pytest.mark.slow) for net in SLOW]
)
def test_output_is_timms_own_with_maps(name: str, shape: tuple[int, ...], stages: int, stem: bool) -> None:
    torch.manual_seed(0)
    net = models.build(f"timm:{name}", shape, 7).eval()
    x = torch.randn(2, *shape)
    out = net.encode(x)
    torch.testing.assert_close(out.logits, net.body(x))
    torch.testing.assert_close(net.classifier(out.emb), out.logits)
    assert len(out.maps) == stages
    assert all(m.ndim == 4 for m in out.maps)
    assert out.has("stem") == stem
    assert out.preact == ()
    (sum(m.square().mean() for m in out.maps) + out.logits.square().sum()).backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []
    for ask in (net.norm, net.tail):
        with pytest.raises(NotApplicable):
            ask(0)


def test_resnet_stages_are_the_four_layers_after_the_stem() -> None:
    net = models.build("timm:resnet18", (3, 64, 64), 3).eval()
    with torch.no_grad():
        out = net.encode(torch.zeros(1, 3, 64, 64))
    assert out.stem.shape[1:] == (64, 32, 32)
    assert [tuple(m.shape[1:]) for m in out.maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]


@pytest.mark.parametrize(
    ("reductions", "stem", "stages"),
    [
        ([2, 4, 8, 16, 32], 0, [1, 2, 3, 4]),
        ([4, 8, 16, 32], None, [0, 1, 2, 3]),
        ([1, 2, 4, 8, 16, 32], 1, [2, 3, 4, 5]),
        ([2, 4, 4, 8], 0, [2, 3]),
        ([16] * 12, None, [2, 5, 8, 11]),
        ([16] * 6, None, [1, 2, 4, 5]),
        ([16] * 2, None, [0, 1]),
    ],
)
def test_stage_points(reductions: list[int], stem: int | None, stages: list[int]) -> None:
    assert stage_points(reductions) == (stem, stages)


def test_imagenet_nets_have_the_papers_sizes() -> None:
    def count(name: str) -> int:
        return sum(p.numel() for p in models.build(f"timm:{name}", (3, 32, 32), 1000).parameters())

    assert count("resnet18") == 11689512
    assert count("resnet34.tv_in1k") == 21797672
    assert count("mobilenetv1_100") == 4231976


def test_zoo_resnet50_is_timms_with_a_small_stem() -> None:
    """Same layers in the same order: with copied weights both give one output."""
    torch.manual_seed(0)
    ours = models.build("resnet50", (3, 32, 32), 10)
    theirs = timm.create_model("resnet50", num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = torch.nn.Identity()

    def convolutions_and_norms(net):
        kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
        return [module for module in net.modules() if isinstance(module, kinds)]

    for mine, other in zip(convolutions_and_norms(ours), convolutions_and_norms(theirs), strict=True):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval().encode(x).logits, theirs.eval()(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", "timm has no net 'resnt18'.*'resnet18'"),
        ("resnet18.nope", "cannot build 'resnet18.nope'"),
        ("hf-hub:someone/net", "timm has no net"),
        ("deit_tiny_distilled_patch16_224", "single linear classifier"),
    ],
)
def test_what_timm_cannot_serve_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        models.build(f"timm:{name}", (3, 32, 32), 10)
    assert "\n" not in str(error.value)


def test_a_net_whose_scores_are_more_than_its_classifiers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As VOLO's are, whose auxiliary head adds to them."""
    made = timm.create_model

    def with_more(name: str, **options: object) -> torch.nn.Module:
        net = made(name, **options)
        own = net.forward
        net.forward = lambda x: own(x) + 0.5 * x.mean()
        return net

    monkeypatch.setattr(timm, "create_model", with_more)
    with pytest.raises(UserError, match="scores that are not those of one linear classifier"):
        models.build("timm:test_resnet", (3, 32, 32), 7)


@pytest.mark.slow
def test_volo_is_refused() -> None:
    with pytest.raises(UserError, match="'volo_d1_224' has scores that are not those of one linear classifier"):
        models.build("timm:volo_d1_224", (3, 64, 64), 7)


def test_an_input_that_a_net_cannot_read_is_said_when_it_is_built() -> None:
    with pytest.raises(UserError, match=r"cannot read inputs \(3, 40, 40\): .*patch size.*another net or size"):
        models.build("timm:test_vit", (3, 40, 40), 7)


def test_building_a_net_draws_nothing_but_its_weights() -> None:
    torch.manual_seed(3)
    net = models.build("timm:test_resnet", (3, 32, 32), 7)
    after = torch.rand(1)
    torch.manual_seed(3)
    timm.create_model("test_resnet", num_classes=7, in_chans=3)
    assert torch.equal(after, torch.rand(1))
    assert all(module.training for module in net.modules())
    means = [value for key, value in net.state_dict().items() if key.endswith("running_mean")]
    assert means
    assert not any(value.any() for value in means)


@pytest.mark.slow
def test_the_work_of_its_nets_is_what_torch_counts():
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    for name, millions in TIMM.items():
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counted:
            timm.create_model(name).eval()(torch.zeros(1, 3, 224, 224))
        assert millions == pytest.approx(counted.get_total_flops() / 2e6, rel=0.001), name
