"""The CIFAR zoo against published figures: counts, layers, shapes, taps, initial weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdbench import models
from kdbench.contract import NotApplicable
from kdbench.models.shufflenet import GroupedUnit, shuffle

torch.set_num_threads(1)

THIN = ("16x32x32", "16x32x32", "32x16x16", "64x8x8", "64")
FOURFOLD = ("32x32x32", "64x32x32", "128x16x16", "256x8x8", "256")
TWICE = ("16x32x32", "32x32x32", "64x16x16", "128x8x8", "128")
VGG = ("64x32x32", "128x16x16", "256x8x8", "512x4x4", "512x4x4", "512")

# net: parameters, buffers, multiply-adds in millions, convolutions, batch norms, shapes of stem, maps and embedding,
# all for 100 classes and one 3x32x32 image.
FIGURES: dict[str, tuple[int, int, float, int, int, tuple[str, ...]]] = {
    "resnet8": (83892, 681, 12.51, 9, 9, THIN),
    "resnet14": (181108, 1135, 26.66, 15, 15, THIN),
    "resnet20": (278324, 1589, 40.82, 21, 21, THIN),
    "resnet32": (472756, 2497, 69.13, 33, 33, THIN),
    "resnet44": (667188, 3405, 97.44, 45, 45, THIN),
    "resnet56": (861620, 4313, 125.75, 57, 57, THIN),
    "resnet110": (1736564, 8399, 253.16, 111, 111, THIN),
    "resnet8x4": (1233540, 2762, 177.07, 10, 10, FOURFOLD),
    "resnet32x4": (7433860, 9954, 1083.04, 34, 34, FOURFOLD),
    "resnet50": (
        23705252,
        53173,
        1298.01,
        53,
        53,
        ("64x32x32", "256x32x32", "512x16x16", "1024x8x8", "2048x4x4", "2048"),
    ),
    "wrn_16_1": (180916, 941, 26.66, 15, 13, THIN),
    "wrn_16_2": (703284, 1837, 101.12, 16, 13, TWICE),
    "wrn_40_1": (569780, 2757, 83.29, 39, 37, THIN),
    "wrn_40_2": (2255156, 5445, 327.61, 40, 37, TWICE),
    "vgg8": (3965028, 2949, 96.19, 5, 5, VGG),
    "vgg11": (9277284, 5512, 209.44, 8, 8, VGG),
    "vgg13": (9462180, 5898, 284.94, 10, 10, VGG),
    "vgg16": (14774436, 8461, 398.18, 13, 13, VGG),
    "vgg19": (20086692, 11024, 511.43, 16, 16, VGG),
    "mobilenetv2": (812836, 18421, 6.52, 53, 53, ("16x16x16", "12x16x16", "16x8x8", "48x4x4", "160x2x2", "1280")),
    "shufflenetv1": (949258, 23785, 38.69, 49, 49, ("24x32x32", "240x16x16", "480x8x8", "960x4x4", "960")),
    "shufflenetv2": (1355528, 16236, 44.50, 56, 56, ("24x32x32", "116x16x16", "232x8x8", "464x4x4", "1024")),
}


@pytest.mark.parametrize("name", FIGURES)
def test_counts_and_shapes_are_the_published_ones(name: str) -> None:
    params, buffers, mmac, convolutions, norms, shapes = FIGURES[name]
    net = models.build(name, (3, 32, 32), 100).eval()
    assert sum(p.numel() for p in net.parameters()) == params
    assert sum(b.numel() for b in net.buffers()) == buffers
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == convolutions
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == norms
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = net.encode(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2e6 == pytest.approx(mmac, abs=0.005)
    assert out.logits.shape == (1, 100)
    found = [out.stem, *out.maps, out.emb]
    assert tuple("x".join(map(str, t.shape[1:])) for t in found) == shapes
    assert len(out.preact) == len(out.maps)


def test_the_other_sizes_a_paper_states() -> None:
    def count(name: str, shape: tuple[int, ...], outputs: int) -> int:
        return sum(p.numel() for p in models.build(name, shape, outputs).parameters())

    assert count("resnet18", (3, 32, 32), 100) == 11220132
    assert count("mobilenetv2_s1", (3, 32, 32), 100) == 812836
    assert count("convnet_w2", (1, 8, 8), 10) == 510
    assert count("convnet_w2", (1, 8, 8), 1) == 429
    assert count("convnet_w32", (1, 8, 8), 10) == 94410
    assert count("convnet1d_w4", (2, 8), 10) == 758
    assert round(count("r2plus1d_18", (3, 16, 112, 112), 51) / 1e6, 2) == 14.39


def test_mobilenet_of_other_papers_doubles_every_resolution() -> None:
    net = models.build("mobilenetv2_s1", (3, 32, 32), 100).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = net.encode(torch.zeros(1, 3, 32, 32))
    assert [m.shape[-1] for m in out.maps] == [32, 16, 8, 4]
    assert counter.get_total_flops() / 2e9 == pytest.approx(0.026, abs=0.0005)


def taps(name: str):
    torch.manual_seed(0)
    net = models.build(name, (3, 32, 32), 10)
    return net, net.encode(torch.randn(4, 3, 32, 32))


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "resnet50", "vgg8", "vgg13", "shufflenetv1"])
def test_maps_are_the_rectified_preactivations(name: str) -> None:
    _, out = taps(name)
    for before, after in zip(out.preact, out.maps, strict=True):
        assert before.min() < 0
        torch.testing.assert_close(after, before.relu(), rtol=0, atol=0)
    assert out.stem.min() >= 0
    torch.testing.assert_close(out.emb, out.maps[-1].mean((2, 3)), rtol=0, atol=0)


def test_wide_resnet_taps_the_raw_stream_and_the_next_norm() -> None:
    net, out = taps("wrn_16_2")
    assert out.stem.min() < 0
    assert all(m.min() < 0 for m in out.maps)
    for stage, (before, after) in enumerate(zip(out.preact, out.maps, strict=True)):
        scale, shift = net.norm(stage)
        normed = nn.functional.batch_norm(after, None, None, scale, shift, training=True)
        torch.testing.assert_close(before, normed, rtol=0, atol=1e-6)
    torch.testing.assert_close(out.emb, out.preact[-1].relu().mean((2, 3)), rtol=0, atol=0)


def test_a_training_step_updates_each_norm_once() -> None:
    net, _ = taps("wrn_16_2")
    counters = [m.num_batches_tracked.item() for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(counters) == {1}


def test_mobilenet_stages_have_no_activation() -> None:
    _, out = taps("mobilenetv2")
    for before, after in zip(out.preact, out.maps, strict=True):
        assert after.min() < 0
        assert before is after
    assert out.emb.min() >= 0


def test_shufflenet_v2_shuffles_its_maps_only() -> None:
    _, out = taps("shufflenetv2")
    for before, after in zip(out.preact, out.maps, strict=True):
        half = before.shape[1] // 2
        left, right = before[:, :half], before[:, half:]
        assert left.min() >= 0 > right.min()
        torch.testing.assert_close(after[:, 0::2], left, rtol=0, atol=0)
        torch.testing.assert_close(after[:, 1::2], right.relu(), rtol=0, atol=0)


def test_channel_shuffle_transposes_the_groups() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert shuffle(x, 1).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_stride_2_unit_of_shufflenet_v1_puts_the_branch_first() -> None:
    unit = GroupedUnit(24, 240, 2).eval()
    assert (unit.first.conv.groups, unit.last.conv.groups) == (1, 3)
    x = torch.randn(1, 24, 4, 4)
    pooled = nn.functional.avg_pool2d(x, 3, 2, padding=1, count_include_pad=True)
    torch.testing.assert_close(unit(x)[:, 216:], pooled)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "vgg8", "resnet50", "mobilenetv2"])
def test_norm_is_the_last_affine_before_the_activation(name: str) -> None:
    """Raising a stage's shift by 1 raises ``preact`` of that stage by 1 and nothing before it."""
    net, _ = taps(name)
    net.eval()
    x = torch.randn(2, 3, 32, 32)
    for stage in range(len(net.trunk.stages)):
        before = net.encode(x)
        scale, shift = net.norm(stage)
        assert scale.shape == shift.shape == (before.preact[stage].shape[1],)
        with torch.no_grad():
            shift += 1
        after = net.encode(x)
        torch.testing.assert_close(after.preact[stage], before.preact[stage] + 1, rtol=1e-4, atol=1e-4)
        for earlier in range(stage):
            torch.testing.assert_close(after.preact[earlier], before.preact[earlier], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["shufflenetv1", "shufflenetv2"])
def test_shufflenets_offer_no_stage_norm(name: str) -> None:
    net = models.build(name, (3, 32, 32), 10)
    with pytest.raises(NotApplicable, match="no batch norm"):
        net.norm(0)


@pytest.mark.parametrize(("size", "last"), [(32, 4), (64, 4), (48, 6)])
def test_vgg_pools_before_its_last_block_for_images_64_high_alone(size: int, last: int) -> None:
    net = models.build("vgg8", (3, size, size), 10).eval()
    with torch.no_grad():
        maps = net.encode(torch.zeros(1, 3, size, size)).maps
    assert [m.shape[2] for m in maps] == [size // 2, size // 4, size // 8, last]


@pytest.mark.parametrize("name", ["resnet32x4", "wrn_16_2", "vgg13", "mobilenetv2"])
def test_convolutions_start_normal_by_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for module in models.build(name, (3, 32, 32), 100).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20000:
            expected = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.03)
            assert abs(module.weight).max() > 3 * expected  # a uniform draw of this spread ends at 1.73


@pytest.mark.parametrize("name", ["shufflenetv1", "shufflenetv2"])
def test_shufflenets_start_from_the_frameworks_defaults(name: str) -> None:
    for module in models.build(name, (3, 32, 32), 100).modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert abs(module.weight).max() <= fan_in**-0.5


def test_classifiers_start_as_their_family_says() -> None:
    torch.manual_seed(0)
    vgg, wide, residual = (models.build(n, (3, 32, 32), 100).classifier for n in ("vgg8", "wrn_16_2", "resnet8"))
    assert vgg.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not vgg.bias.any()
    assert not wide.bias.any()
    assert wide.weight.std().item() == pytest.approx((1 / 128 / 3) ** 0.5, rel=0.02)
    assert residual.bias.any()
    assert not any(m.bias.any() for m in models.build("vgg8", (3, 32, 32), 100).modules() if isinstance(m, nn.Conv2d))


# Parameters in millions with HSAKD's heads (one a stage, 4 x 100 outputs), from the authors' nets.
WITH_HEADS = {
    "wrn_40_2": 8.02,
    "wrn_16_2": 2.63,
    "wrn_40_1": 2.05,
    "resnet20": 1.04,
    "resnet8x4": 4.79,
    "mobilenetv2_s1": 5.48,
    "shufflenetv1": 4.07,
    "shufflenetv2": 5.88,
}


@pytest.mark.parametrize("name", WITH_HEADS)
def test_tails_add_up_to_the_published_self_supervised_nets(name: str) -> None:
    net = models.build(name, (3, 32, 32), 100)
    tails = [net.tail(stage) for stage in range(len(net.trunk.stages) - 1)] + [net.extra_tail()]
    for tail in tails:
        tail.classifier = nn.Linear(tail.classifier.in_features, 400)
    params = sum(p.numel() for module in (net, *tails) for p in module.parameters())
    assert round(params / 1e6, 2) == WITH_HEADS[name]
