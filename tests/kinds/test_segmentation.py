"""Segmentation: metrics of one confusion matrix, ignored pixels, and the engine's promises on maps of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench import data, kinds, models
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.watch import first_difference, state_copy
from kdbench.contract import Batch, Maps, NotApplicable, Out, Rows
from kdbench.contract.maps import IGNORED
from kdbench.data.decode.place import Place
from kdbench.data.feed.dataset import Dataset
from kdbench.engine import teachers
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trainer
from kdbench.kinds.base import Evidence, Scaling
from kdbench.kinds.segmentation import confused
from kdbench.methods.cwd.adapter import CWD
from kdbench.specs import registry
from kdbench.specs.config import RunConfig, run_config
from kdbench.specs.protocol import Schedule

KIND = kinds.kind("segmentation")
CPU = torch.device("cpu")
TRUTH = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, IGNORED]], [[2, 2, 2, 2], [0, 0, 0, 0]]], dtype=torch.uint8)
"""Of four classes, the last of which is nowhere."""


def scores(said: torch.Tensor, classes: int = 4) -> torch.Tensor:
    """Scores of which a map of classes follows."""
    return torch.nn.functional.one_hot(said.long(), classes).permute(0, 3, 1, 2).float()


def measured(said: torch.Tensor) -> dict[str, float]:
    batches = [(scores(said[i : i + 1]), TRUTH[i : i + 1]) for i in range(len(said))]
    answers = [KIND.answer(Out(z), Batch({}, Maps(y), torch.zeros(1)), Scaling()) for z, y in batches]
    return KIND.score(list(KIND.metrics), Evidence(KIND.joined(answers), Maps(TRUTH)))


def test_truth_scores_100_whatever_is_said_of_ignored_pixels():
    assert measured(TRUTH.where(TRUTH != IGNORED, 3)) == dict.fromkeys(KIND.metrics, 100.0)


def test_metrics_are_those_of_all_pixels_together_over_the_classes_that_are_there():
    said = torch.zeros_like(TRUTH)
    said[1, 0] = 2
    counts = sum(confused(scores(said[i : i + 1]), TRUTH[i : i + 1]) for i in range(2))
    assert counts.tolist() == [[8, 0, 0, 0], [3, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]]
    found = measured(said)
    assert found["miou"] == pytest.approx(100 * (8 / 11 + 0 + 1) / 3)
    assert found["pixel_accuracy"] == pytest.approx(100 * 12 / 15)
    assert found["class_accuracy"] == pytest.approx(100 * (1 + 0 + 1) / 3)
    said[0, 0, 0] = 3  # said and nowhere: a class of its own, never right
    assert measured(said)["miou"] == pytest.approx(100 * (7 / 11 + 0 + 1 + 0) / 4)


def test_scores_of_cells_are_enlarged_and_the_loss_leaves_ignored_pixels_out():
    logits = torch.randn(2, 4, 1, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch({}, Maps(TRUTH), torch.arange(2))
    whole = torch.nn.functional.interpolate(logits, (2, 4), mode="bilinear").log_softmax(1)
    wanted = [-whole[n, c, i, j] for n, i, j in np.ndindex(2, 2, 4) if (c := int(TRUTH[n, i, j])) != IGNORED]
    assert KIND.loss(Out(logits), batch).item() == pytest.approx(float(torch.stack(wanted).sum()) / 16, rel=1e-6)
    halves = [KIND.loss(Out(logits[i : i + 1]), batch_of(i)) for i in range(2)]
    assert torch.stack(halves).mean().item() == pytest.approx(KIND.loss(Out(logits), batch).item(), rel=1e-6)


def batch_of(row: int) -> Batch:
    return Batch({}, Maps(TRUTH[row : row + 1]), torch.arange(1))


def test_targets_that_are_no_maps_and_maps_of_ignored_pixels_alone_are_told():
    assert KIND.refusal(Rows({}, torch.arange(3)), None) == "targets that are no maps"
    some, none = (Rows({}, Maps(one)) for one in (TRUTH, torch.full_like(TRUTH, IGNORED)))
    assert KIND.unscorable(some, some, None) is None
    assert "every pixel of the test rows is ignored" in str(KIND.unscorable(some, none, None))


def test_a_poly_schedule_falls_to_nothing_and_needs_its_power():
    from kdbench.engine.optim import factor

    poly = Schedule(name="poly", power=0.9)
    assert factor(poly, 0, 10) == 1
    assert factor(poly, 5, 10) == pytest.approx(0.5**0.9)
    assert factor(poly, 10, 10) == 0
    assert "power" not in Schedule(name="cosine").model_dump(mode="json")
    with pytest.raises(ValueError, match="power belongs to schedule 'poly'"):
        Schedule(name="poly")


@pytest.mark.parametrize("name", ["semfpn_c8s4-32:cell_w4d1", "pspnet_c8:cell_w4d1"])
def test_nets_give_scores_of_cells_and_no_decoder_runs_that_nobody_reads(name):
    net = models.build(name, (3, 64, 96), 5)
    out = net.encode(torch.randn(2, 3, 64, 96))
    assert out.logits.shape[:2] == (2, 5)
    assert [m.shape[2] for m in out.maps] == [16, 8, 4, 2]
    net.sparing, net.asked = True, frozenset({"maps"})
    assert net.encode(torch.randn(2, 3, 64, 96)).words == {"maps", "preact", "stem"}
    assert isinstance(net.norm(0), tuple)
    with pytest.raises(NotApplicable, match="has the parts body, head, no neck"):
        net.init_from(net, ["neck"])


@pytest.mark.slow
def test_a_net_of_timm_is_dilated_under_a_pspnet():
    net = models.build("pspnet_c8:timm:resnet18", (3, 64, 96), 5)
    assert net.encode(torch.randn(2, 3, 64, 96)).logits.shape == (2, 5, 8, 12)


def config(method: str, *overrides: str) -> RunConfig:
    return run_config(method, "shapes/semantic", [*overrides, "train.epochs=2"])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = Place(None, tmp_path_factory.mktemp("cache"), Progress.silent())
    return data.load(config("plain").task.data, place).head(24)


def prepared(of: RunConfig, rows: Dataset, folder: Path) -> Prepared:
    untrained = {role: teachers.untrained(of.task, role, rows, CPU) for role in of.task.pair.teachers}
    return prepare(of, 0, RunPlace(CPU, Home(folder), None, folder / "run"), rows, untrained)


def trained(of: RunConfig, rows: Dataset, folder: Path) -> dict[str, torch.Tensor]:
    made = prepared(of, rows, folder)
    Trainer(made.method, made.task).run()
    return state_copy(made.method.student)


def test_a_method_of_weight_0_is_plain_bit_for_bit(rows, tmp_path):
    plain = trained(config("plain"), rows, tmp_path / "plain")
    for name, weight in (("kd", "kd_weight"), ("cwd", "channel_weight")):
        off = trained(config(name, f"method.{weight}=0"), rows, tmp_path / name)
        assert first_difference(plain, off) is None, name


def test_a_copy_of_the_teacher_has_no_loss_but_its_own(rows, tmp_path):
    for name in ("kd", "cwd"):
        made = prepared(config(name), rows, tmp_path / name)
        made.method.teachers["image"] = made.method.student
        made.method.eval()
        batch = made.task.wrap(made.task.rows(torch.arange(4)))
        terms = made.method.losses(batch, None)
        assert [value.item() for term, value in terms.items() if term not in ("task", "ce")] == [0.0]


def test_what_is_compared_follows_the_kind_of_task(rows, tmp_path):
    made = prepared(config("cwd"), rows, tmp_path)
    assert isinstance(made.method, CWD)
    assert (made.method.hp.features, made.method.hp.temperature) == ("logits", 4.0)
    other = prepared(config("cwd", "method.features=maps"), rows, tmp_path / "maps").method
    assert isinstance(other, CWD)
    assert sum(p.numel() for p in other.levels.parameters()) == 16 * 64 + 64  # the last stage read is the third
    calls: list[int] = []
    other.teacher.head.register_forward_hook(lambda *_: calls.append(1))
    batch = made.task.wrap(made.task.rows(torch.arange(4)))
    other.losses(batch, None)
    assert not calls


def test_a_stopped_run_goes_on_to_the_same_bits(rows, tmp_path):
    whole = trained(config("mgd"), rows, tmp_path / "whole")
    made = prepared(config("mgd"), rows, tmp_path / "part")
    made.method.train()
    run = StageRun(made.method, next(iter(made.method.stages())), made.task)
    for _ in range(2):
        run.step()
    again = prepared(config("mgd"), rows, tmp_path / "again")
    again.method.train()
    other = StageRun(again.method, next(iter(again.method.stages())), again.task)
    other.load(run.state())
    while other.step_number < other.total:
        other.step()
    assert first_difference(whole, state_copy(again.method.student)) is None


def test_pictures_of_ignored_pixels_train_and_leave_the_loss_at_0(rows, tmp_path):
    nothing = Rows(rows.train.x, Maps(torch.full_like(rows.train.y.labels, IGNORED)))
    made = prepared(config("plain"), replace(rows, train=nothing), tmp_path)
    done = Trainer(made.method, made.task).run()
    assert torch.tensor(done.digest).isfinite().all()
    assert Scorer(made.task).all(made.method.deployed).keys() == set(KIND.metrics)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("pkd", "it runs on detection and oriented tasks, this one is a segmentation task"),
        ("dkd", "it runs on classification tasks, this one is a segmentation task"),
        ("rkd", "the student semfpn_c16s4-16:cell_w4d1 offers no emb"),
        ("simkd", "offers no classifier"),
    ],
)
def test_what_cannot_run_on_maps_says_why(rows, tmp_path, method, line):
    with pytest.raises(NotApplicable, match=line):
        prepared(config(method), rows, tmp_path)


def test_published_figures_stand_beside_the_full_size_task():
    for name, value in (("cwd", 75.90), ("mgd", 73.63)):
        (claim,) = [one for one in registry.method(name).card.claims if one.source == "cityscapes"]
        pair = registry.task("cityscapes/pspnet-r101-r18").pair
        assert (claim.value, claim.student, claim.teacher) == (value, pair.student.net, pair.teachers["image"].net)


@pytest.mark.slow
def test_the_full_size_task_runs_on_a_generated_folder_of_its_form(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 1)):
        for number in range(count):
            name = f"aachen_{number:06}_000019"
            for folder, ending, values in (
                ("leftImg8bit", "leftImg8bit", rng.integers(0, 256, (16, 32, 3))),
                ("gtFine", "gtFine_labelIds", rng.choice([0, 7, 8, 11, 26, 33], (16, 32))),
            ):
                place = tmp_path / "cityscapes" / folder / part / "aachen"
                place.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(values.astype(np.uint8)).resize((2048, 1024), Image.Resampling.NEAREST)
                picture.save(place / f"{name}_{ending}.png", compress_level=1)
    nets = [f"pair.{side}.net=pspnet_c8:cell_w4d1" for side in ("student", "teachers.image")]
    random: list[Any] = ["pair.student.weights=null", "pair.teachers.image.init=null"]
    of = run_config("cwd", "cityscapes/pspnet-r101-r18", [*nets, *random, "train.epochs=1", "train.batch=4"])
    found = data.load(of.task.data, Place(tmp_path, tmp_path / "cache", Progress.silent()))
    assert found.train.y.labels.shape == (4, 1024, 2048)
    assert not found.official
    assert sorted(found.train.y.labels.unique().tolist()) == [0, 1, 2, 13, 18, IGNORED]
    made = prepared(of, found, tmp_path / "run")
    before = state_copy(made.method.student)
    Trainer(made.method, made.task).run()
    assert first_difference(before, state_copy(made.method.student)) is not None
    assert 0 <= Scorer(made.task).all(made.method.deployed)["miou"] <= 100
