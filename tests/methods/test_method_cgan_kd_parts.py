"""cgan_kd: bounded sampling, vicinities, nets of the published sizes, augmentations and pixels."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdbench.checks.tiny import method_config
from kdbench.checks.watch import first_difference, state_copy
from kdbench.contract import NotApplicable
from kdbench.engine.assemble import hyper_parameters
from kdbench.methods.cgan_kd import deep, diffaugment, residual
from kdbench.methods.cgan_kd.ccgan import CcGAN, LabelNet, Vicinity
from kdbench.methods.cgan_kd.deep import DeepDiscriminator, DeepGenerator
from kdbench.methods.cgan_kd.features import SparseAutoencoder
from kdbench.methods.cgan_kd.gan import architecture, follow, to_pixels, to_unit
from kdbench.methods.cgan_kd.networks import Condition, SmallDiscriminator, SmallGenerator
from kdbench.methods.cgan_kd.ratio import RatioNet, ratio_terms
from kdbench.methods.cgan_kd.residual import ResidualDiscriminator, ResidualGenerator
from kdbench.methods.cgan_kd.sampling import Rejection, SamplingError, class_losses, filter_scalars, filtered
from kdbench.specs import registry

CLASSES, VECTOR = Condition(100, classes=True), Condition(128, classes=False)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rejection(ratios, *, burn_in=50, batch=20, max_rounds=40):
    """A sampler whose fakes are the numbers of the proposals, in order, and whose ratios a function gives."""
    made, uniforms = iter(range(10**9)), rng(9)

    def propose(n):
        numbers = torch.tensor([next(made) for _ in range(n)])
        return numbers, ratios(n)

    return Rejection(propose, lambda n: torch.rand(n, generator=uniforms), burn_in, batch, "seven", max_rounds)


# Sampling


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_useless_ratios_end_in_an_error_that_names_the_label(value):
    with pytest.raises(SamplingError, match="label seven: the largest density ratio"):
        rejection(lambda n: torch.full((n,), value))(5)


def test_a_spike_in_the_ratio_cannot_loop_for_ever():
    first = iter([True])
    with pytest.raises(SamplingError, match="label seven: 0 of 5 fakes accepted after 3 rounds"):
        rejection(lambda n: torch.full((n,), 1e12 if next(first, False) else 1e-12), max_rounds=3)(5)


def test_rejection_gives_as_many_as_asked_and_accepts_mean_ratio_over_maximum():
    ratios = rng(1)
    sampler = rejection(lambda n: torch.rand(n, generator=ratios) * 2 + 0.1, batch=500)
    assert len(sampler(3000)) == 3000
    assert sampler.accepted / sampler.proposed == pytest.approx(1.1 / float(sampler.maximum), abs=0.03)


def test_the_filter_keeps_what_is_below_the_quantile_of_its_own_sample():
    noise = rng(2)
    teacher = {}

    def draw(n):
        return torch.randn(n, 3, generator=noise)

    def logits(fakes):
        teacher.setdefault("burn_in", fakes)
        return fakes

    fakes, out = filtered(draw, logits, 40, 200, 0.8, 1, 50)
    cutoff = class_losses(teacher["burn_in"], 1).quantile(0.8)
    assert fakes.shape == (40, 3)
    assert torch.equal(fakes, out)
    assert bool((class_losses(out, 1) < cutoff).all())


def test_a_teacher_that_tells_nothing_apart_ends_in_an_error_that_names_the_label():
    with pytest.raises(SamplingError, match=r"label 4: no teacher loss of 10 fakes"):
        filtered(lambda n: torch.zeros(n, 1), lambda x: x.expand(-1, 10), 6, 10, 0.9, 4, 5)
    with pytest.raises(SamplingError, match="all labels"):
        filter_scalars(torch.ones(9), 0.7)


def test_a_filter_that_nothing_more_passes_ends_after_its_rounds():
    rounds = []

    def teacher(fakes):
        rounds.append(len(fakes))
        return torch.randn(len(fakes), 10, generator=rng(4)) - (100.0 * (len(rounds) > 1)) * (torch.arange(10) == 4)

    with pytest.raises(SamplingError, match=r"label 4: 0 of 6 .* after 5 rounds"):
        filtered(lambda n: torch.zeros(n, 1), teacher, 6, 10, 0.9, 4, 5)
    assert len(rounds) == 6


@pytest.mark.parametrize("rho", [0.3, 0.7, 1.0])
def test_scalars_kept_are_the_share_rho_within_one(rho):
    kept, _ = filter_scalars(torch.rand(501, generator=rng(3)), rho)
    assert abs(len(kept) - rho * 501) <= 1


# Vicinities and labels


def ccgan(labels, **changes):
    hp = hyper_parameters(method_config(registry.method("cgan_kd")))
    hp = dataclasses.replace(hp, **changes)
    task = SimpleNamespace(raw_shape={"image": (1, 8, 8)}, n_train=len(labels))
    return CcGAN(task, "image", torch.tensor(labels), lambda h: h.sum(1), 32, hp)


@pytest.mark.parametrize("vicinity", ["soft", "hard"])
def test_a_discriminator_row_lies_in_its_vicinity(vicinity):
    gan = ccgan([0.0, 0.1, 0.1, 0.35, 0.5, 0.9, 1.0], vicinity=vicinity)
    seen = {}
    gan.condition = lambda y: seen.setdefault(len(seen), y)
    rows = gan.d_rows(400, rng())
    target, fake, radius = seen[0], seen[1], gan.vicinity.radius
    assert bool(((gan.labels(rows.real) - target).abs() <= radius * 1.0001).all())
    assert bool(((fake - target).abs() <= radius * 1.0001).all())
    assert bool(((fake >= 0) & (fake <= 1)).all())
    assert bool((rows.real_weight >= 0.999e-3).all())


def test_every_row_of_a_vicinity_is_drawn_and_repeated_labels_count():
    gan = ccgan([0.0, 0.5, 0.5, 0.5, 1.0], vicinity="hard", kappa=0.1, sigma=1e-4)
    rows = gan.d_rows(600, rng()).real
    assert torch.equal(rows.unique(), torch.arange(5))
    assert float((rows == 0).float().mean()) == pytest.approx(1 / 3, abs=0.06)


def test_an_empty_vicinity_ends_without_noise_and_not_in_a_loop():
    gan = ccgan([0.0, 1.0], vicinity="hard", kappa=1e-6, sigma=0.2)
    target = gan.targets(200, rng(), near=True)
    assert bool(((target - target.round()).abs() <= 1e-6).all())


def test_equal_labels_are_refused():
    with pytest.raises(NotApplicable, match="all training labels are equal"):
        Vicinity.of(torch.full((9,), 0.5), 1.0, True)


def test_the_ratio_draws_labels_uniformly_and_then_a_row_of_the_label():
    gan = ccgan([0.2, 0.2, 0.2, 0.2, 0.8])
    rows = gan.ratio_rows(4000, rng())
    assert float((rows == 4).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert torch.equal(rows.unique(), torch.arange(5))


# Nets


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_nets_have_the_sizes_of_their_source(monkeypatch):
    digits = Condition(10, classes=True)
    assert count(SmallGenerator((1, 8, 8), digits, 32, 16)) == 12_273
    assert count(SmallDiscriminator((1, 8, 8), digits, 16)) == 26_209
    assert count(LabelNet(128)) == 67_328
    monkeypatch.setattr(residual, "normed", lambda module: module)  # orthogonal starts take seconds at this size
    monkeypatch.setattr(deep, "normed", lambda module: module)
    with torch.device("meta"):
        many = Condition(1000, classes=True)  # the paper's 50.4 and 34.6 million
        assert count(DeepGenerator((3, 128, 128), many, 128, 128)) / 1e6 == pytest.approx(50.4, rel=0.005)
        assert count(DeepDiscriminator((3, 128, 128), many, 128)) / 1e6 == pytest.approx(34.6, rel=0.001)
        assert count(ResidualGenerator((3, 32, 32), CLASSES, 128, 64)) == 4_580_867
        assert round(count(ResidualGenerator((3, 64, 64), VECTOR, 256, 64)) / 1e6, 2) == 15.07
        assert round(count(ResidualDiscriminator((3, 64, 64), VECTOR, 64)) / 1e6, 2) == 21.66
        assert round(count(RatioNet(CLASSES, 3072, (2048, 1024, 512, 256, 128), 0.5)) / 1e6, 2) == 9.30
        assert round(count(RatioNet(VECTOR, 12288, (1024, 512, 256, 128, 64), 0.5)) / 1e6, 2) == 13.42
        auto = SparseAutoencoder((3, 64, 64), 64)
        assert [round(count(m) / 1e6, 2) for m in (auto.predict, nn.ModuleList([auto.encode, auto.features]))] == [
            13.24,
            52.72,
        ]


@pytest.mark.parametrize("side", [8, 12, 16, 28, 32, 48, 64])
def test_small_nets_make_and_judge_images_of_any_size_that_halves(side):
    told = Condition(3, classes=True)
    y = torch.arange(2)
    fake = SmallGenerator((3, side, side), told, 8, 8)(torch.randn(2, 8), y)
    assert fake.shape == (2, 3, side, side)
    assert float(fake.detach().abs().max()) <= 1
    assert SmallDiscriminator((3, side, side), told, 8)(fake, y).shape == (2,)


@pytest.mark.parametrize("side", [4, 7, 34])
def test_other_sizes_are_refused(side):
    with pytest.raises(NotApplicable, match="px"):
        SmallGenerator((1, side, side), CLASSES, 8, 8)


def test_published_nets_refuse_sizes_that_were_never_published():
    with pytest.raises(NotApplicable, match=r"method\.nets=small"):
        ResidualGenerator((1, 8, 8), CLASSES, 8, 8)


@pytest.mark.parametrize(("side", "told"), [(32, CLASSES), (64, VECTOR), (128, CLASSES)])
def test_published_nets_at_every_size_move_with_noise_and_label(side, told):
    generator, discriminator = architecture("published", side)
    y = torch.arange(2) if told.classes else torch.randn(2, told.size)
    z = torch.randn(2, 16)
    made = generator((1, side, side), told, 16, 8)
    fake = made(z, y)
    judge = discriminator((1, side, side), told, 8)
    score = judge(fake, y)
    assert (fake.shape, score.shape) == ((2, 1, side, side), (2,))
    score.sum().backward()
    still = [name for net in (made, judge) for name, p in net.named_parameters() if p.grad is None]
    assert not still
    assert not torch.equal(made.eval()(z, y), made(z, y.flip(0)))
    assert not torch.equal(made(z, y), made(z.flip(0), y))


def test_a_hidden_width_equal_to_the_features_does_not_take_the_label_twice():
    net = RatioNet(Condition(10, classes=True), 128, (256, 128, 64), 0.0)
    assert [m.in_features for m in net.main if isinstance(m, nn.Linear)] == [138, 256, 128, 64]
    assert net(torch.randn(3, 128), torch.arange(3)).shape == (3, 1)


def test_the_ratio_learns_a_ratio():
    """Two Gaussians at -1 and +1: log p/q = -2x, so the ratio falls from left to right, and its mean over q is 1."""
    torch.manual_seed(0)
    net = RatioNet(Condition(1, classes=True), 1, (32,), 0.0)
    optimizer, y = torch.optim.Adam(net.parameters(), 0.01), torch.zeros(256, dtype=torch.long)
    for _ in range(200):
        real, fake = torch.randn(256, 1) - 1, torch.randn(256, 1) + 1
        optimizer.zero_grad()
        sum(ratio_terms(net(real, y), net(fake, y), 0.1).values()).backward()
        optimizer.step()
    left, middle, right = net(torch.tensor([[-1.0], [0.0], [1.5]]), y[:3]).flatten().tolist()
    assert left > middle > right
    assert net(torch.randn(256, 1) + 1, y).mean().item() == pytest.approx(1, abs=0.5)


# Images


@pytest.mark.parametrize("name", diffaugment.AUGMENTS)
def test_augmentations_pass_gradients_and_are_drawn_per_image(name):
    x = torch.rand(1, 3, 16, 16, generator=rng()).expand(6, -1, -1, -1).clone().requires_grad_(True)
    out = diffaugment.augment(x, [name], rng(1))
    assert out.shape == x.shape
    assert any(not torch.equal(out[0], other) for other in out[1:])
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert float(gradient.abs().sum()) > 0


def test_translation_moves_by_at_most_an_eighth_and_cutout_clears_at_most_a_quarter():
    x = torch.arange(1.0, 65.0).view(1, 1, 8, 8).expand(200, -1, -1, -1)
    centres = diffaugment.translation(x, rng())[:, 0, 4, 4].unique()
    assert centres.tolist() == [28, 29, 30, 36, 37, 38, 44, 45, 46]
    cleared = (diffaugment.cutout(x, rng()) == 0).sum((1, 2, 3))
    assert 0 < int(cleared.min()) <= int(cleared.max()) <= 16


def test_pixels_are_cut_off_and_survive_the_way_back():
    raw = torch.arange(256, dtype=torch.uint8)
    assert bool(((to_pixels(to_unit(raw)).int() - raw.int()).abs() <= 1).all())
    assert to_pixels(torch.tensor([-1.0, 0.999, 1.0])).tolist() == [0, 254, 255]


def test_the_average_follows_and_copies_counters():
    net, average = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    before = average[0].weight.detach().clone()
    net(torch.randn(4, 2))
    follow(average, net, 0.75)
    assert torch.allclose(average[0].weight, 0.75 * before + 0.25 * net[0].weight)
    assert int(average[1].num_batches_tracked) == 1
    follow(average, net, 0.0)
    assert first_difference(state_copy(average), state_copy(net)) is None
