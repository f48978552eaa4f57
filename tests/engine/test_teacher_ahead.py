"""Teachers asked about several batches at once: drawn is what is drawn without, answers are equal but for rounding."""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tinies import METHODS, tiny_of
from tiny_runs import AUGMENTED, EPOCHS, LAST, ROWS, Told, lengthened, prepared, same, task, trained
from torch import Tensor, nn

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.checks.tiny import Tiny
from kdbench.contract import Batch, Needs, Network, Out
from kdbench.engine import stage, teacher_ahead
from kdbench.engine.ahead import Ahead, Group
from kdbench.engine.assemble import Prepared, require_shared
from kdbench.engine.stage import StageRun
from kdbench.engine.standin import OFFERED, refusal
from kdbench.engine.teacher_ahead import ANSWERED, ROUNDING, TeacherAhead
from kdbench.engine.trainer import Trained, Trainer
from kdbench.specs.config import run_config
from kdbench.specs.options import EAGER, EngineOptions

STEPS = EPOCHS * 4
ROUNDED = {"rel": 1e-5, "abs": 1e-6}
TOYS = {"Bank": 5, "Adversary": 9}
"""Toys, and after how many steps of all stages one is killed: within a group of three, and within two."""


def ahead(many: int) -> EngineOptions:
    return EngineOptions(teacher_ahead=many)


# what is drawn


def watched(of: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each step of a run draws: its batch, its generator's state and that of the process's."""
    seen: list[Any] = []
    with monkeypatch.context() as patched:
        whole = stage.StageRun._whole

        def noted(self: StageRun, batch: Batch, at: Any) -> dict[str, Tensor]:
            seen.append([batch.x["image"], batch.y, batch.index, at.rng.get_state(), torch.get_rng_state()])
            return whole(self, batch, at)

        patched.setattr(stage.StageRun, "_whole", noted)
        trained(of, folder, folder)
    return seen


@pytest.mark.parametrize(
    ("method", "many"), [("kd", 3), ("ccd", 2), pytest.param("crd", 8, marks=pytest.mark.slow)]
)  # ragged batches within groups, views of the loader's, groups of two epochs
def test_a_run_draws_what_it_draws_without(method, many, tmp_path, monkeypatch):
    augment = AUGMENTED if method != "ccd" else ()
    without = watched(task(method, EAGER, augment), tmp_path / "without", monkeypatch)
    found = watched(task(method, ahead(many), augment), tmp_path / "ahead", monkeypatch)
    assert len(found) == len(without) == STEPS
    for mine, other in zip(found, without, strict=True):
        assert all(map(torch.equal, mine, other))


# what is answered


def asked(made: Prepared) -> list[int]:
    """Sizes of the batches that a run's teacher computes, from now on."""
    sizes: list[int] = []
    teacher = made.method.teacher
    assert isinstance(teacher, TeacherAhead)
    forward = teacher.net.encode

    def counted(x: Tensor) -> Out:
        sizes.append(len(x))
        return forward(x)

    teacher.net.encode = counted  # type: ignore[method-assign]
    return sizes


@pytest.mark.parametrize(
    ("method", "many"),
    [
        ("kd", 3),
        ("reviewkd", 8),
        pytest.param("kd", 64, marks=pytest.mark.slow),
        pytest.param("rkd", 2, marks=pytest.mark.slow),
        pytest.param("simkd", 4, marks=pytest.mark.slow),
        pytest.param("sskd", 2, marks=pytest.mark.slow),
    ],
)
def test_losses_are_those_without_and_a_teacher_is_asked_once_a_group(method, many, tmp_path):
    without = trained(task(method), tmp_path / "without", tmp_path)
    said: Told = []
    made = prepared(task(method, ahead(many)), tmp_path / "ahead", tmp_path, said=said)
    sizes = asked(made)
    done = Trainer(made.method, made.task, tmp_path / "ahead").run()
    assert done.digest == pytest.approx(without[1].digest, **ROUNDED)
    assert said == []
    first, *groups = [size for number, size in enumerate(sizes) if number != 1]  # the second one is tried alone
    views = sizes[1] // 16
    steps = sum(stage.steps for stage in done.stages)  # sskd has a stage before
    assert len(groups) + 1 == -(-steps // many)
    assert first + sum(groups) == steps // 4 * ROWS * views
    of_four = [16, 16, 16, LAST]
    assert first == views * sum((of_four * EPOCHS)[:many])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_alike(method, tmp_path):
    without = trained(tiny_of(method), tmp_path / "without", tmp_path / "without")
    found = trained(tiny_of(method, ahead(3)), tmp_path / "ahead", tmp_path / "ahead")
    assert found[1].digest == pytest.approx(without[1].digest, rel=1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True, "fold_teacher": True}])
def test_other_options_go_along(options, tmp_path):
    without = trained(task("kd", EngineOptions(**options)), tmp_path / "without", tmp_path)
    said: Told = []
    found = trained(task("kd", EngineOptions(**options, teacher_ahead=4)), tmp_path / "ahead", tmp_path, said=said)
    assert said == []
    assert found[1].digest == pytest.approx(without[1].digest, rel=1e-5 if "precision" not in options else 2e-2)


def batches(*rows: int, size: int = 16) -> list[Batch]:
    torch.manual_seed(0)
    return [Batch({"image": torch.randn(n, 3, size, size)}, torch.arange(n), torch.arange(n)) for n in rows]


def standing(net: Network, fields: tuple[str, ...], many: list[Batch], said: Told) -> TeacherAhead:
    """A network asked about some batches together."""
    every = Ahead(len(many), said.append)
    every.group = Group(0, many)
    return TeacherAhead("teacher", net.eval().requires_grad_(False), fields, every, ROUNDING["fp32"])


@pytest.mark.parametrize("name", ["convnet_w4", pytest.param("resnet8x4", marks=pytest.mark.slow)])
def test_every_field_that_is_read_is_of_the_batch_asked_about(name):
    torch.manual_seed(0)
    net, many, said = models.build(name, (3, 16, 16), 10), batches(16, 16, 12), list[str]()
    fields = ("logits", "maps", "preact", "emb")
    teacher = standing(net, fields, many, said)
    for batch in [many[1], many[0], many[2], many[1]]:
        out, own = teacher(batch), net(batch)
        assert out.words == {*fields}
        for field in fields:
            torch.testing.assert_close(getattr(out, field), getattr(own, field), rtol=1e-5, atol=1e-5)
    assert said == []


def test_an_answer_that_was_written_to_is_given_whole_again():
    many = batches(8, 8)
    teacher = standing(models.build("convnet_w4", (3, 16, 16), 10), ("logits",), many, [])
    right, other = teacher(many[0]).logits.clone(), teacher(many[1]).logits.clone()
    teacher(many[0]).logits.zero_()
    assert torch.equal(teacher(many[0]).logits, right)
    assert torch.equal(teacher(many[1]).logits, other)


def test_only_one_group_is_held(tmp_path):
    made = prepared(task("kd", ahead(4)), tmp_path / "run", tmp_path)
    run = StageRun(made.method.train(), next(made.method.stages()), made.task)
    held: list[weakref.ref[Tensor]] = []
    for _ in range(STEPS):
        group = made.task.ahead.group if made.task.ahead is not None else None
        run.step()
        assert made.task.ahead is not None
        if made.task.ahead.group is not group:
            assert made.task.ahead.group is not None
            held += [weakref.ref(batch.x["image"]) for batch in made.task.ahead.group.batches]
        del group
    assert len(held) == STEPS
    assert sum(one() is not None for one in held) == 4


# runs that are killed


def toy(load: Any, name: str, options: EngineOptions) -> Tiny:
    toys, killed = load("support/toy_methods.py"), load("support/killed_run.py")
    tiny = lengthened(killed.toy_task(toys.toy_ref(getattr(toys, name)), "classification"), AUGMENTED)
    return replace(tiny, config=replace(tiny.config, engine=options))


def _dies(of: Tiny, folder: Path, steps: int) -> None:
    torch.set_num_threads(1)
    done, step = [0], StageRun.step

    def counted(self: StageRun, **how: bool) -> dict[str, Tensor]:
        if done[0] == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        done[0] += 1
        return step(self, **how)

    StageRun.step = counted  # type: ignore[method-assign]
    _run(of, folder)


def _run(of: Tiny, folder: Path) -> tuple[Prepared, Trained]:
    made = prepared(of, folder, folder)
    return made, Trainer(made.method, made.task, folder, checkpoint_seconds=0.0).run()


def _rounding_by_place(self: TeacherAhead, batch: Batch) -> Out:
    """Answers of a library that rounds a row by its place in a batch: other groups would be other bits."""
    out = self.net(batch)
    places = torch.linspace(1, 1.001, 64)[: len(batch)]
    return Out(None, emb=out.emb * places[:, None])


@pytest.mark.parametrize("name", TOYS)
def test_a_run_killed_within_a_group_ends_with_the_same_bits(name, load, tmp_path, monkeypatch):
    monkeypatch.setattr(TeacherAhead, "_of", _rounding_by_place)
    of = toy(load, name, ahead(3))
    whole = _run(of, tmp_path / "whole")
    dies = multiprocessing.get_context("fork").Process(target=_dies, args=(of, tmp_path / "killed", TOYS[name]))
    dies.start()
    dies.join()
    assert dies.exitcode == -signal.SIGKILL
    again = _run(of, tmp_path / "killed")
    assert same(whole, again)
    assert sum(report.steps for report in again[1].stages) > TOYS[name]


# what is asked as ever


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("hsakd", "hsakd reads tail of its teachers; they compute batch by batch"),
        ("smooth_teacher", "smooth_teacher trains its teachers; they compute batch by batch"),
        ("dmae", "stage 'distill' hides patches of its pictures; its teachers are asked batch by batch"),
        ("word_kd", "stage 'distill' has targets of many numbers a row; its teachers are asked batch by batch"),
    ],
)
def test_what_is_not_asked_ahead_is_one_line(method, line, tmp_path):
    said: Told = []
    made = prepared(task(method, ahead(4)), tmp_path / "run", tmp_path, said=said)
    run = StageRun(made.method.train(), next(made.method.stages()), made.task)
    run.step()
    run.step()
    assert said == [f"engine.teacher_ahead: {line}"]
    assert made.task.ahead is None or made.task.ahead.group is None


def test_batches_of_a_methods_own_are_asked_alone_and_said_once(tmp_path):
    said: Told = []
    without = trained(task("fskd_lr"), tmp_path / "without", tmp_path)
    found = trained(task("fskd_lr", ahead(4)), tmp_path / "ahead", tmp_path, said=said)
    assert same(without, found)
    (line,) = said
    assert line.startswith("engine.teacher_ahead: some batches are not those drawn")


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        (Needs(teacher=frozenset({"emb", "preact", "maps", "classifier"})), None),
        (Needs(teacher=frozenset({"fpn"})), "reads fpn of its teachers"),
        (Needs(teacher=frozenset({"norm", "maps"})), "reads norm of its teachers"),
        (Needs(teacher_batchnorm="batch"), "has its teachers normalise by the batch"),
        (Needs(teacher=frozenset({"classifier"})), "reads no answers of its teachers"),
    ],
)
def test_what_a_method_needs_says_whether_its_teachers_are_asked_ahead(needs, reason):
    assert refusal(needs, ANSWERED, OFFERED) == reason


class Mixing(Network):
    """Rows see each other, by a batch norm without statistics of its own; and it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled = nn.BatchNorm2d(3, track_running_stats=False)

    def encode(self, x: Tensor) -> Out:
        return Out(self.scaled(x).amax((2, 3)) + 0.01 * torch.rand(len(x), 3))


def test_a_teacher_whose_rows_see_each_other_computes_and_draws_as_ever():
    net, many, said = Mixing(), batches(8, 4, 8), list[str]()
    teacher = standing(net, ("logits",), many, said)
    torch.manual_seed(1)
    found = [teacher(batch).logits for batch in many]
    torch.manual_seed(1)
    assert all(map(torch.equal, found, [net(batch).logits for batch in many]))
    assert said == ["engine.teacher_ahead: teacher 'teacher' answers a row otherwise beside others; "
                    "it computes batch by batch"]  # fmt: skip


def test_a_teacher_that_is_looked_into_computes():
    net, many, said, seen = models.build("convnet_w4", (3, 16, 16), 10), batches(8, 8), list[str](), list[int]()
    teacher = standing(net, ("logits",), many, said)
    net.classifier.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    teacher(many[0])
    assert seen == [8]
    assert said == ["engine.teacher_ahead: teacher 'teacher' is looked into by hooks; it computes batch by batch"]


def test_a_teacher_in_training_is_asked_alone_and_a_copy_is_a_teacher():
    net, many = models.build("convnet_w4", (3, 16, 16), 10), batches(8, 8)
    teacher = standing(net, ("logits",), many, [])
    assert type(teacher_ahead.StandIn.__deepcopy__(teacher, {})) is type(net)
    net.train()
    assert teacher(many[0]).has("maps")  # as the net itself answers


def test_several_processes_are_refused():
    config = run_config("kd", "digits/few-shot", ["engine.teacher_ahead=4"])
    with pytest.raises(UserError, match=r"engine\.teacher_ahead=4 is for runs of one process; leave it out"):
        require_shared(config, 2)
