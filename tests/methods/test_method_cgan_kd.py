"""cgan_kd as a whole: settings, the set of fakes, resume in every stage, reuse by other students."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.checks.tiny import method_config, tiny
from kdbench.checks.watch import Interrupted, WatchedStages, first_difference, state_copy
from kdbench.contract import NotApplicable
from kdbench.engine.assemble import hyper_parameters, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.trainer import Trainer
from kdbench.methods.cgan_kd import refusals
from kdbench.runs import run as runs
from kdbench.specs import registry
from kdbench.specs.config import run_config

pytestmark = pytest.mark.filterwarnings("ignore:the teacher agrees")  # an untrained generator's fakes look like nothing


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    place = RunPlace(torch.device("cpu"), Home(home), None, home / run)
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
        refusals.check(hyper_parameters(config_of(**changes)))


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
    refusals.check_classes(1, filters=False)
    with pytest.raises(NotApplicable, match="single class"):
        refusals.check_classes(1, filters=True)


def test_a_teacher_at_chance_is_warned_of(tmp_path):
    method = ready(small("cgan_kd", "classification"), tmp_path, "a").method
    method._ask_teacher = lambda raw, what: torch.randn(len(raw), 10, generator=rng(len(raw)))
    with pytest.warns(UserWarning, match="no better than chance"):
        method.make_fakes()


def test_other_inputs_than_one_image_are_refused():
    net = SimpleNamespace(input="image")
    with pytest.raises(NotApplicable, match="one image input"):
        refusals.image_input(SimpleNamespace(raw_shape={"image": (1, 8, 8), "audio": (4,)}), net, net)
    with pytest.raises(NotApplicable, match="square"):
        refusals.image_input(SimpleNamespace(raw_shape={"image": (1, 8, 9)}), net, net)


def test_a_label_outside_the_range_is_refused():
    task = SimpleNamespace(label_range=(0.0, 1.0), train_labels=torch.tensor([0.2, 1.4]))
    with pytest.raises(NotApplicable, match="outside the range"):
        refusals.checked_range(task)


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
    predicted = method._ask_teacher(fakes["x"], "logits").clamp(*method.label_range)
    assert torch.allclose(fakes["y"], predicted, atol=1e-5)


def test_a_class_without_rows_gets_no_fakes(tmp_path):
    found = small("cgan_kd", "classification")
    keep = found.data.train.y != 3
    train = type(found.data.train)({"image": found.data.train.x["image"][keep]}, found.data.train.y[keep])
    found = dataclasses.replace(found, data=dataclasses.replace(found.data, train=train))
    with pytest.warns(UserWarning, match="no training row has class 3"):
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
    watch = WatchedStages(prepared, stop)
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
    record = runs.run_seed(request)
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
