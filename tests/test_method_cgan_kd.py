"""cgan_kd: bounded sampling, vicinities, nets of the published sizes, resume in every stage, shared fakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdbench import registry
from kdbench.checks.tiny import method_config, tiny
from kdbench.checks.watch import Interrupted, Watch, first_difference, state_copy
from kdbench.config import run_config
from kdbench.contract import NotApplicable
from kdbench.engine import run as runs
from kdbench.engine.prepare import Place, hyper_parameters, prepare
from kdbench.engine.trainer import Trainer
from kdbench.errors import UserError
from kdbench.home import Home
from kdbench.methods.cgan_kd import adapter, diffaugment, residual
from kdbench.methods.cgan_kd.ccgan import CcGAN, LabelNet, Vicinity
from kdbench.methods.cgan_kd.features import SparseAutoencoder
from kdbench.methods.cgan_kd.gan import follow, to_pixels, to_unit
from kdbench.methods.cgan_kd.networks import Condition, SmallDiscriminator, SmallGenerator
from kdbench.methods.cgan_kd.ratio import RatioNet, ratio_terms
from kdbench.methods.cgan_kd.residual import ResidualDiscriminator, ResidualGenerator
from kdbench.methods.cgan_kd.sampling import Rejection, SamplingError, class_losses, filter_scalars, filtered

pytestmark = pytest.mark.filterwarnings("ignore:the teacher agrees")  # an untrained generator's fakes look like nothing
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
    with pytest.raises(SamplingError, match=r"label 4: 0 of 6 .* after 5 rounds"):
        filtered(lambda n: torch.zeros(n, 1), lambda x: x.expand(-1, 10), 6, 10, 0.9, 4, 5)
    with pytest.raises(SamplingError, match="all labels"):
        filter_scalars(torch.ones(9), 0.7)


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
    monkeypatch.setattr(residual, "_normed", lambda module: module)  # orthogonal starts take seconds at this size
    with torch.device("meta"):
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


def test_published_nets_at_both_sizes():
    for side, told, y in ((32, CLASSES, torch.arange(2)), (64, VECTOR, torch.randn(2, 128))):
        fake = ResidualGenerator((1, side, side), told, 16, 8)(torch.randn(2, 16), y)
        assert fake.shape == (2, 1, side, side)
        assert ResidualDiscriminator((1, side, side), told, 8)(fake, y).shape == (2,)


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


# The method


def config_of(name: str = "cgan_kd", **changes):
    """A method's smoke settings, changed."""
    config = method_config(registry.method(name))
    return dataclasses.replace(config, params={**config.params, **changes})


def small(name: str, kind: str, **changes):
    config = config_of(name, **changes)
    needs = config.ref.adapter().needs(hyper_parameters(config))
    found = tiny(config.ref, config, needs, kind)
    task = found.config.task
    brief = task.model_copy(update={"train": task.train.model_copy(update={"epochs": 2})})
    return dataclasses.replace(found, config=dataclasses.replace(found.config, task=brief))


def ready(found, home: Path, run: str):
    """A tiny method ready to train in a run folder of its own, its ratio far from dying at the start."""
    trained = {role: dataclasses.replace(t) for role, t in found.teachers.items()}
    place = Place(torch.device("cpu"), Home(home), None, home / run)
    prepared = prepare(found.config, 0, place, found.data, trained)
    if prepared.method.ratio is not None:
        nn.init.constant_(prepared.method.ratio.main[-2].bias, 2.0)
    return prepared


WHOLE = {"subsample": True, "filter": True, "rho": 0.7, "max_rounds": 2000}
FEW = {"gan_steps": 2, "ratio_steps": 2, "embed_steps": 2, "gan_batch": 8, "ratio_batch": 8, "d_steps": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relabel": True, "filter": False}, "needs method.filter=true"),
        ({"ratio_widths": (64, 33)}, "33 is not a multiple of 8"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        adapter.check(hyper_parameters(config_of(**changes)))


@pytest.mark.parametrize("value", ["rho=0", "rho=1.5", "per_label=0", "kappa=0", "diffaugment=[blur]"])
def test_values_out_of_bounds_are_config_errors(value):
    with pytest.raises(UserError, match=value.partition("=")[0]):
        run_config("cgan_kd", "digits/few-shot", [f"method.{value}"])


def test_needs_are_the_union_with_the_inner_method():
    def needs(name):
        config = method_config(registry.method(name))
        return config.ref.adapter().needs(hyper_parameters(config))

    alone, kd, review = needs("cgan_kd"), needs("cgan_kd+kd"), needs("cgan_kd+reviewkd")
    assert alone.kinds == {"classification", "regression"}
    assert kd.kinds == {"classification"}
    assert review.student >= needs("reviewkd").student
    assert review.teacher >= needs("reviewkd").teacher | {"logits"}


def test_a_single_class_is_refused_where_there_is_a_filter():
    adapter.check_classes(1, filters=False)
    with pytest.raises(NotApplicable, match="single class"):
        adapter.check_classes(1, filters=True)


def test_a_teacher_at_chance_is_warned_of(tmp_path):
    method = ready(small("cgan_kd", "classification"), tmp_path, "a").method
    method._ask_teacher = lambda raw, what: torch.randn(len(raw), 10, generator=rng(len(raw)))
    with pytest.warns(UserWarning, match="no better than chance"):
        method.make_fakes()


def test_other_inputs_than_one_image_are_refused():
    net = SimpleNamespace(input="image")
    with pytest.raises(NotApplicable, match="one image input"):
        adapter.image_input(SimpleNamespace(raw_shape={"image": (1, 8, 8), "audio": (4,)}), net, net)
    with pytest.raises(NotApplicable, match="square"):
        adapter.image_input(SimpleNamespace(raw_shape={"image": (1, 8, 9)}), net, net)


def test_a_label_outside_the_range_is_refused():
    task = SimpleNamespace(label_range=(0.0, 1.0), train_labels=torch.tensor([0.2, 1.4]))
    with pytest.raises(NotApplicable, match="outside the range"):
        adapter.checked_range(task)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_fakes_have_the_labels_asked_for_and_the_same_seed_gives_the_same(tmp_path, kind):
    found = small("cgan_kd", kind, **WHOLE)
    one, two = (ready(found, tmp_path, run).method for run in "ab")
    fakes = one.make_fakes()
    assert fakes["x"].dtype is torch.uint8
    assert first_difference(fakes, two.make_fakes()) is None
    hp = one.hp
    if kind == "classification":
        assert fakes["y"].bincount().tolist() == [hp.per_label] * len(one.gan.present)
    else:
        low, high = one.task.label_range
        assert abs(len(fakes["y"]) - hp.rho * hp.labels * hp.per_label) <= 1
        assert bool(((fakes["y"] >= low - 1e-5) & (fakes["y"] <= high + 1e-5)).all())


def test_relabelled_fakes_have_the_teachers_prediction(tmp_path):
    method = ready(small("cgan_kd", "regression", **{**WHOLE, "relabel": True}), tmp_path, "a").method
    fakes = method.make_fakes()
    predicted = method._ask_teacher(fakes["x"], "logits").clamp(method.low, method.high)
    assert torch.allclose(fakes["y"], predicted, atol=1e-5)


def test_a_class_without_rows_gets_no_fakes(tmp_path):
    found = small("cgan_kd", "classification")
    keep = found.data.train.y != 3
    train = type(found.data.train)({"image": found.data.train.x["image"][keep]}, found.data.train.y[keep])
    found = dataclasses.replace(found, data=dataclasses.replace(found.data, train=train))
    method = ready(found, tmp_path, "a").method
    assert 3 not in method.make_fakes()["y"]
    assert 3 not in method.gan.d_rows(300, rng()).given


def test_the_last_stage_sees_real_and_fake_rows_at_its_own_rate(tmp_path):
    found = small("cgan_kd+kd", "classification", finetune_lr=0.25)
    prepared = ready(found, tmp_path, "a")
    stages = {}
    for stage in prepared.method.stages():
        stages[stage.name] = stage
    assert list(stages) == ["vanilla", "gan", "mixed-distill"]
    last = stages["mixed-distill"]
    assert len(last.extra.y) == 4 * len(prepared.method.gan.present)
    assert last.groups[0].optimizer["lr"] == pytest.approx(0.25 * prepared.task.optimizer["lr"])
    assert prepared.method.inner_method.task.n_train == prepared.task.n_train + len(last.extra.y)
    assert last.ledger == "distill"
    assert stages["gan"].once


def train(prepared, folder: Path, stop=None, every: float = 60.0):
    watch = Watch(prepared, stop)
    Trainer(prepared.method, prepared.task, folder, checkpoint_seconds=every).run()
    return watch.seen


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "kind"), [("cgan_kd+reviewkd", "classification"), ("cgan_kd", "regression")])
def test_a_run_stopped_in_every_stage_and_while_it_samples_ends_with_the_same_bits(tmp_path, name, kind, monkeypatch):
    found = small(name, kind, **WHOLE, **FEW)
    whole = ready(found, tmp_path / "whole", "run")
    seen = train(whole, tmp_path / "whole" / "run")
    assert "ratio" in seen.lengths

    home = tmp_path / "stopped"
    for number, length in enumerate(seen.lengths.values()):
        stopped = ready(found, home, "run")
        if number == len(seen.lengths) - 1:
            with monkeypatch.context() as patch:
                patch.setattr(type(stopped.method), "make_fakes", _interrupt)
                with pytest.raises(Interrupted):
                    train(ready(found, home, "run"), home / "run", every=0.0)
        with pytest.raises(Interrupted):
            train(stopped, home / "run", (number, length // 2), every=0.0)
    last = ready(found, home, "run")
    train(last, home / "run")
    assert first_difference(state_copy(whole.method), state_copy(last.method)) is None
    assert [entry["reused"] for entry in last.task.kept] == [False]


def _interrupt(method):
    raise Interrupted


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A home in which one run has made its fakes, and that run."""
    home = tmp_path_factory.mktemp("shared")
    made = ready(small("cgan_kd", "classification", **FEW), home, "made")
    assert train(made, home / "made").lengths["gan"] == FEW["gan_steps"]
    return home, made


def test_another_student_with_an_inner_method_reuses_the_fakes_and_trains_no_generator(shared):
    home, made = shared
    found = small("cgan_kd+kd", "classification", **FEW)
    pair = found.config.task.pair
    student = pair.student.model_copy(update={"net": "convnet_w3"})
    task = found.config.task.model_copy(update={"pair": pair.model_copy(update={"student": student})})
    other = ready(dataclasses.replace(found, config=dataclasses.replace(found.config, task=task)), home, "other")
    assert train(other, home / "other").lengths["gan"] == 0
    (entry,) = other.task.kept
    assert entry["reused"]
    assert [stage["name"] for stage in entry["stages"]] == ["gan"]
    assert entry["sha256"] == made.task.kept[0]["sha256"]


def test_the_student_ends_the_same_whether_the_fakes_were_made_or_found(shared):
    home, made = shared
    again = ready(small("cgan_kd", "classification", **FEW), home, "again")
    train(again, home / "again")
    assert again.task.kept[0]["reused"]
    assert first_difference(state_copy(made.method.deployed), state_copy(again.method.deployed)) is None


def test_another_setting_of_the_generator_makes_its_own_fakes(shared):
    home, _ = shared
    other = ready(small("cgan_kd", "classification", **{**FEW, "latent": 16}), home, "latent")
    assert train(other, home / "latent").lengths["gan"] == FEW["gan_steps"]
    assert not other.task.kept[0]["reused"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_own_extractors_run_on_both_kinds(tmp_path):
    for kind in ("classification", "regression"):
        found = small("cgan_kd", kind, **{**WHOLE, **FEW}, features="own", feature_batch=8, channels=8)
        seen = train(ready(found, tmp_path / kind, "run"), tmp_path / kind / "run")
        expected = {"vanilla", "gan", "features", "ratio", "mixed"}
        assert set(seen.lengths) == expected | ({"embed-images", "embed"} if kind == "regression" else set())


def evaluated(method: str, task: str, home: Path, smoke: bool):
    config = run_config(method, task, smoke=smoke)
    request = runs.Request(config, 0, torch.device("cpu"), Home(home), overhead="off")
    record = runs.evaluate(request)
    assert record.status == "ok", record
    return record


@pytest.mark.slow
def test_the_ledger_of_a_run_that_reuses_cites_what_the_generator_took(tmp_path):
    first = evaluated("cgan_kd", "digits/few-shot", tmp_path, smoke=True)
    second = evaluated("cgan_kd+kd", "digits/few-shot", tmp_path, smoke=True)
    lines = {record.run_id: {stage.name: stage for stage in record.stages} for record in (first, second)}
    made, cited = lines[first.run_id], lines[second.run_id]
    assert [made[name].basis for name in ("gan", "fakes")] == ["measured", "measured"]
    assert [cited[name].basis for name in ("gan", "fakes")] == ["cited", "cited"]
    assert cited["gan"].steps == made["gan"].steps == 3
    assert cited["gan"].device_h == made["gan"].device_h
    assert cited["fakes"].artefact_sha256 == made["fakes"].artefact_sha256
    assert cited["vanilla"].basis == "measured"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("task", "worst"), [("digits/few-shot", 72.0), ("digits/angle", 11.0)])
def test_a_whole_run_ends_near_or_above_the_vanilla_student(tmp_path, task, worst):
    record = evaluated("cgan_kd", task, tmp_path, smoke=False)
    spec = registry.task(task)
    score = record.metrics.last[spec.score.primary]
    assert score >= worst if spec.score.higher_is_better else score <= worst
    stages = {stage.name: stage for stage in record.stages}
    assert stages["gan"].ledger == "generator_train"
    assert stages["fakes"].artefact_sha256 is not None
