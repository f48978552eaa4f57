"""The training loop: exact resume in every kind of stage, kept artefacts, groups and schedules, divergence, damage."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.contract import Group, NotApplicable, Rows, Stage, Terms
from kdbench.engine import applicability, checkpoint, optim
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Keeper, Task
from kdbench.engine.trainer import Diverged, Trainer
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.protocol import Optimizer, Schedule

TOYS = ["Bank", "Adversary", "RawViews", "FinalViews", "Mutual", "Generated", "Outer", "Headed", "TrainedTeacher"]
STAGE_ENDS = 1e9
"""Seconds between checkpoints so long that only ends of stages are written."""


@pytest.fixture
def toys(load):
    return load("support/toy_methods.py")


@pytest.fixture
def killed(load):
    return load("support/killed_run.py")


@pytest.fixture
def task(toys, killed):
    """A toy on a tiny task."""
    return lambda cls, kind="classification": killed.toy_task(toys.toy_ref(cls), kind)


class Killed(BaseException):
    """Stands for a signal: no handler of the engine may swallow it."""


@pytest.fixture
def kill_after(monkeypatch):
    """Makes the given number of further steps the last ones; None lets all be done."""
    left: list[int | None] = [None]
    step = StageRun.step

    def counted(self):
        if left[0] is not None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
        return step(self)

    monkeypatch.setattr(StageRun, "step", counted)
    return lambda steps: left.__setitem__(0, steps)


def told(prepared, trained):
    """All that a run leaves but its times: weights and buffers, curve, digest, stage reports."""
    state = {name: tensor.clone() for name, tensor in prepared.method.state_dict().items()}
    curve = [{k: v for k, v in point.items() if k != "elapsed_s"} for point in trained.curve]
    stages = [asdict(replace(stage, seconds=0.0)) for stage in trained.stages]
    return state, (curve, trained.digest, stages)


def assert_same(a, b):
    assert a[1] == b[1]
    assert a[0].keys() == b[0].keys()
    assert [name for name in a[0] if not torch.equal(a[0][name], b[0][name])] == []


CADENCES = {"every step": 0.0, "stage ends": STAGE_ENDS}
KILLED = [
    pytest.param(name, cadence, id=f"{name}-{words}", marks=[] if number % 2 == turn else pytest.mark.slow)
    for number, name in enumerate(TOYS)
    for turn, (words, cadence) in enumerate(CADENCES.items())
]
"""Toys take turns at the cadence of checkpoints; the other one is left to the slow set."""


@pytest.mark.parametrize(("name", "cadence"), KILLED)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(toys, killed, task, kill_after, tmp_path, name, cadence):
    tiny = task(getattr(toys, name))
    undisturbed = told(*killed.train(tiny, tmp_path / "whole", STAGE_ENDS))
    steps = sum(stage["steps"] for stage in undisturbed[1][2])
    draw = random.Random(f"{name}{cadence}")
    for _ in range(3):
        kill_after(draw.randrange(steps if cadence else steps // 3))
        with pytest.raises(Killed):
            killed.train(tiny, tmp_path / "killed", cadence)
    kill_after(None)
    assert_same(undisturbed, told(*killed.train(tiny, tmp_path / "killed", cadence)))


@pytest.mark.parametrize("name", ["Adversary", "Generated"])
def test_a_run_killed_between_two_stages_ends_with_the_same_bits(toys, killed, task, kill_after, tmp_path, name):
    tiny = task(getattr(toys, name))
    undisturbed = told(*killed.train(tiny, tmp_path / "whole", STAGE_ENDS))
    kill_after(undisturbed[1][2][0]["steps"])  # right before the first step of the second stage
    with pytest.raises(Killed):
        killed.train(tiny, tmp_path / "killed")
    kill_after(None)
    assert_same(undisturbed, told(*killed.train(tiny, tmp_path / "killed")))


@pytest.mark.slow
def test_kill_9_in_the_second_stage_and_resume_ends_with_the_same_bits(toys, killed, task, tmp_path):
    command = [sys.executable, str(Path(killed.__file__)), str(tmp_path / "killed"), "Adversary", "0.05"]
    process = subprocess.Popen(command)
    try:
        second_stage = tmp_path / "killed" / "run" / "stage-0.pt"
        begin = time.monotonic()
        while not second_stage.exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - begin < 100
            time.sleep(0.02)
        time.sleep(0.3)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    tiny = task(toys.Adversary)
    assert_same(told(*killed.train(tiny, tmp_path / "whole")), told(*killed.train(tiny, tmp_path / "killed")))


def test_what_a_run_reuses_from_another_changes_no_bit(toys, killed, task, tmp_path):
    tiny = task(toys.Generated)
    prepared, trained = killed.train(tiny, tmp_path)
    (tmp_path / "run").rename(tmp_path / "another run")  # the shared artefact stays in the home
    again, repeated = killed.train(tiny, tmp_path)
    assert [entry["reused"] for entry in prepared.task.kept] == [False, False]
    assert [(entry["name"], entry["scope"], entry["reused"]) for entry in again.task.kept] == [
        ("means", "task", True),
        ("rows", "run", False),
    ]
    assert_same(told(prepared, trained), told(again, repeated))


def test_a_resumed_run_reads_what_it_kept(toys, killed, task, kill_after, tmp_path, monkeypatch):
    tiny = task(toys.Generated)
    kill_after(12)
    with pytest.raises(Killed):
        killed.train(tiny, tmp_path)
    kill_after(None)
    monkeypatch.setattr(toys.Generated, "generate", lambda self: pytest.fail("made a second time"))
    prepared, _ = killed.train(tiny, tmp_path)
    assert [entry["reused"] for entry in prepared.task.kept] == [False, False]


@pytest.mark.parametrize("name", ["stage-0.pt", "current.pt"])
def test_a_damaged_checkpoint_is_set_aside(toys, killed, task, kill_after, tmp_path, name):
    tiny = task(toys.Adversary)
    undisturbed = told(*killed.train(tiny, tmp_path / "whole"))
    kill_after(12)
    with pytest.raises(Killed):
        killed.train(tiny, tmp_path / "killed")
    kill_after(None)
    path = tmp_path / "killed" / "run" / name
    path.write_bytes(path.read_bytes()[:500])
    assert_same(undisturbed, told(*killed.train(tiny, tmp_path / "killed")))
    assert path.with_suffix(".damaged").stat().st_size == 500


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    checkpoint.save(tmp_path / "current.pt", {"method": Evil()})
    assert checkpoint.load(tmp_path / "current.pt", torch.device("cpu")) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["Adversary", "Bank"])
def test_divergence_is_reported_with_its_stage(toys, killed, task, monkeypatch, tmp_path, name):
    cls = getattr(toys, name)
    loss = "fool" if name == "Adversary" else "losses"
    right = getattr(cls, loss)

    def blown(self, *args):
        if loss == "fool":
            *args, update = args
            args.append(lambda value, group=None: update(value * torch.nan, group))
        terms = right(self, *args)
        if args[1].step <= 3:
            return terms
        return Terms({key: term * torch.nan for key, term in terms.items()}, handed=getattr(terms, "handed", None))

    monkeypatch.setattr(cls, loss, blown)
    with pytest.raises(Diverged, match="'fool'" if name == "Adversary" else "'distill'"):
        killed.train(task(cls), tmp_path)


def stage_run(tiny, folder, **changes):
    prepared = tiny.prepare(folder)
    stage = replace(next(iter(prepared.method.stages())), **changes)
    return prepared, StageRun(prepared.method, stage, prepared.task)


def test_seeds_stages_and_steps_have_streams_of_their_own(toys, task, tmp_path):
    _, run = stage_run(task(toys.Bank), tmp_path / "a")
    first = torch.rand(3, generator=run.at().rng)
    assert torch.equal(first, torch.rand(3, generator=run.at().rng))
    run.step_number = 1
    assert not torch.equal(first, torch.rand(3, generator=run.at().rng))
    _, other = stage_run(task(toys.Bank), tmp_path / "b", name="other")
    assert not torch.equal(first, torch.rand(3, generator=other.at().rng))


def test_at_counts_steps_epochs_and_the_fraction_done(toys, task, tmp_path):
    _, run = stage_run(task(toys.Bank), tmp_path)
    seen = []
    for _ in range(run.total):
        at = run.at()
        seen.append((at.step, at.epoch, at.epochs, at.t))
        run.step()
    per_epoch = run.total // seen[0][2]
    assert seen[0] == (0, 0, 8, 0.0)
    assert seen[per_epoch] == (per_epoch, 1, 8, 1 / 8)
    assert seen[-1] == (run.total - 1, 7, 8, (run.total - 1) / run.total)


def test_groups_have_their_own_optimiser_and_schedule(toys, killed, task, tmp_path):
    tiny = task(toys.Adversary)
    schedule = Schedule(name="steps", milestones=[4])
    train = tiny.config.task.train.model_copy(update={"schedule": schedule})
    tiny = replace(tiny, config=replace(tiny.config, task=tiny.config.task.model_copy(update={"train": train})))
    _, run = stage_run(tiny, tmp_path)
    assert isinstance(run.optimizers["critic"], torch.optim.SGD)
    assert isinstance(run.optimizers["student"], torch.optim.Adam)
    for _ in range(run.total):
        run.step()
    rates = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
    assert rates == {"critic": 0.01, "student": pytest.approx(0.001)}
    assert run.optimizers["critic"].param_groups[0]["momentum"] == 0.5
    assert run.draws == 2 * run.total


def test_an_update_of_one_group_leaves_the_other_alone(toys, task, tmp_path):
    prepared, run = stage_run(task(toys.Adversary), tmp_path)
    critic = [p.clone() for p in prepared.method.critic.parameters()]
    student = [p.clone() for p in prepared.method.student.parameters()]
    loss = prepared.method.critic(prepared.method.embed(prepared.method.student(run.draw()).emb)).sum()
    run.update(loss, "critic")
    assert not all(torch.equal(a, b) for a, b in zip(critic, prepared.method.critic.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(student, prepared.method.student.parameters(), strict=True))


def test_a_parameter_without_a_gradient_is_not_stepped(toys, task, tmp_path):
    class Idle(toys.Toy):
        def __init__(self, *args):
            super().__init__(*args)
            self.idle = torch.nn.Parameter(torch.ones(3))

        def groups(self):
            return [Group("all", [p for p in self.parameters() if p.requires_grad], {"weight_decay": 0.5})]

    prepared, run = stage_run(task(Idle), tmp_path)
    for _ in range(3):
        run.step()
    assert torch.equal(prepared.method.idle, torch.ones(3))


def test_another_optimiser_starts_from_its_own_defaults():
    task = Optimizer(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    assert optim.settings(task, {"weight_decay": 0.0})[1] == {
        "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False,
    }  # fmt: skip
    name, settings = optim.settings(task, {"name": "adam", "lr": 2e-4})
    assert (name, settings["lr"], settings["weight_decay"]) == ("adam", 2e-4, 0.0)
    with pytest.raises(ValueError, match="unknown optimizer 'adan'"):
        optim.settings(task, {"name": "adan"})
    with pytest.raises(ValueError, match="'adam' has no setting 'momentum'"):
        optim.settings(task, {"name": "adam", "momentum": 0.9})


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule(name="steps", milestones=[2, 3]), [1, 1, 0.1, 0.01]),
        (Schedule(name="cosine"), [1, 0.853553, 0.5, 0.146447]),
        (Schedule(name="constant", warmup=2), [1 / 3, 2 / 3, 1, 1]),
    ],
    ids=["steps", "cosine", "warmup"],
)
def test_schedules_by_epoch(schedule, factors):
    assert [optim.factor(schedule, epoch, 4) for epoch in range(4)] == pytest.approx(factors, abs=1e-6)


def test_views_reach_the_loss_view_major(toys, task, tmp_path):
    _, run = stage_run(task(toys.FinalViews), tmp_path)
    batch = run.draw()
    upright = batch.view(0).x["image"]
    assert (batch.views, len(batch)) == (4, 64)
    assert torch.equal(batch.view(1).x["image"], upright.rot90(1, (2, 3)))
    assert torch.equal(batch.unview(batch.y)[0], batch.unview(batch.y)[3])
    assert torch.equal(batch.unview(batch.index)[0], batch.view(2).index)


def test_raw_views_are_made_before_the_augmentation_they_replace(toys, task, tmp_path):
    prepared, run = stage_run(task(toys.RawViews), tmp_path)
    batch = run.draw()
    raw = prepared.task.wrap(prepared.task.rows(batch.view(0).index)).x["image"]
    assert torch.equal(batch.view(0).x["image"], raw)  # the flip is the method's


def test_extra_rows_are_trained_on_and_counted(toys, killed, task, tmp_path):
    prepared, trained = killed.train(task(toys.Generated), tmp_path)
    tiny_rows = prepared.task.n_train
    gan, distill = trained.stages
    assert distill.rows == 8 * (tiny_rows + 20)
    assert (gan.steps, gan.once, gan.ledger) == (8, True, "generator_train")
    extra = Rows({"image": torch.zeros(20, 3, 8, 8, dtype=torch.uint8)}, torch.zeros(20, dtype=torch.int64))
    longer = prepared.task.extend(extra)
    assert (longer.n_train, longer.steps, len(longer.train_labels)) == (80, 5, 80)
    assert prepared.task.n_train == 60


def test_peers_start_from_streams_of_their_own(toys, task, tmp_path):
    method = task(toys.Mutual).prepare(tmp_path).method
    first, second, third = ([p.clone() for p in student.parameters()] for student in method.students)
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(second[0], third[0])
    plain = task(toys.Toy).prepare(tmp_path).method
    assert all(torch.equal(a, b) for a, b in zip(first, plain.student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"student": frozenset({"stem"})}, "the student convnet_w4 offers no stem"),
        ({"teacher": frozenset({"maps", "stem"})}, "the image teacher offers no stem"),
        ({"data": frozenset({"rotation_safe"})}, "the data set is not rotation_safe"),
    ],
)
def test_needs_that_nets_and_data_do_not_offer(toys, task, tmp_path, needs, words):
    prepared = task(toys.Toy).prepare(tmp_path)
    teachers = {role: teacher.net for role, teacher in prepared.teachers.items()}
    with pytest.raises(NotApplicable, match=words):
        applicability.nets_and_data(replace(prepared.needs, **needs), prepared.task, prepared.method.student, teachers)


def test_kinds_and_roles_are_checked_before_any_work(toys):
    needs = toys.TwoRoles.needs(None)
    with pytest.raises(NotApplicable, match="runs on classification tasks, this one is a regression task"):
        applicability.kind_and_roles(needs, registry.task("digits/angle"))
    with pytest.raises(NotApplicable, match="needs a teacher of role 'audio', the task has image"):
        applicability.kind_and_roles(needs, registry.task("digits/few-shot"))
    assert applicability.kind_and_roles(toys.Toy.needs(None), registry.task("digits/few-shot")) == ["image"]


def test_fewer_rows_than_a_step_is_defined_for_are_refused(toys, task, tmp_path):
    with pytest.raises(UserError, match="batches of 1 rows, the method needs at least 2"):
        stage_run(task(toys.Adversary), tmp_path, batch=1)


def test_two_groups_of_one_name_are_refused(toys, task, tmp_path):
    prepared = task(toys.Toy).prepare(tmp_path)
    groups = prepared.method.groups() * 2
    with pytest.raises(ValueError, match="two groups have one name"):
        StageRun(prepared.method, Stage("twice", groups, losses=prepared.method.losses, steps=1), prepared.task)


@pytest.mark.parametrize("settings", [{}, {"epochs": 1, "steps": 1}], ids=["no length", "two lengths"])
def test_a_stage_has_exactly_one_length(settings):
    with pytest.raises(ValueError, match="exactly one of epochs and steps"):
        Stage("odd", [], losses=lambda batch, at: {}, **settings)


def test_teachers_and_plain_networks_are_as_needs_asks(toys, task, tmp_path):
    for cls, training, trains in ((toys.Toy, False, False), (toys.BatchStatistics, True, False)):
        teacher = task(cls).prepare(tmp_path).method.teacher
        assert teacher.training is training
        assert any(p.requires_grad for p in teacher.parameters()) is trains
    assert all(p.requires_grad for p in task(toys.TrainedTeacher).prepare(tmp_path).method.teacher.parameters())


def test_the_curve_scores_what_is_deployed(toys, task, tmp_path):
    prepared = task(toys.Headed).prepare(tmp_path)
    scored = []
    Trainer(prepared.method, prepared.task, None, lambda net: scored.append(net) or {"top1": 1.0}).run()
    assert set(map(type, scored)) == {toys.Headed.Deployed}
    assert len(scored) == 8


@pytest.mark.parametrize(("most", "at"), [(None, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [3, 5, 8]), (1, [8]), (0, [])])
def test_a_metric_that_takes_long_is_computed_at_few_points(toys, task, tmp_path, most, at):
    prepared = task(toys.Headed).prepare(tmp_path)
    trained = Trainer(prepared.method, prepared.task, None, lambda net: {"top1": 1.0}, scored=most).run()
    assert len(trained.curve) == 8
    assert [point["epoch"] for point in trained.curve if point["val"]] == at


@pytest.mark.parametrize(("words", "most"), [([], None), (["score.curve_points=3"], 3), (["score.curve_points=0"], 0)])
def test_a_task_may_say_at_how_many_points(tmp_path, words, most):
    request = Request(run_config("plain", "digits/few-shot", words, smoke=True), 0, torch.device("cpu"), Home(tmp_path))
    task = Task(request.config.task, request.load().head(64), request.device, 0, Keeper(tmp_path, tmp_path, {}))
    assert Scorer(task).curve_points == most


def test_metrics_that_fit_match_or_write_are_computed_at_few_points():
    few = {name for name, metric in kinds.metrics().items() if metric.curve_points is not None}
    assert few >= {"probe", "finetune", "ap", "mask_ap", "obb_ap50", "chrf", "bleu"}
    assert few.isdisjoint({"top1", "mae", "miou", "probe_few", "bits_per_byte", "map"})
