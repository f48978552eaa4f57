"""Overrides as people type them: below groups that a task leaves unset, and values that need quotes."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from kdbench import data
from kdbench.base.errors import UserError
from kdbench.specs import registry
from kdbench.specs.card import Variant
from kdbench.specs.config import run_config
from kdbench.specs.data import Subset
from kdbench.specs.task import TaskSpec

WEIGHTS = "pair.teachers.image.weights"


def task(*overrides: str, of: str = "digits") -> TaskSpec:
    return run_config("kd", of, list(overrides)).task


def test_a_key_below_an_unset_group_can_be_set():
    assert task("data.subset.per_class=10").data.subset == Subset(per_class=10)
    assert task("data.subset.fraction=0.5", "data.subset.seed=3").data.subset == Subset(fraction=0.5, seed=3)


def test_a_rule_that_a_task_leaves_to_its_kind_can_be_set():
    probed = run_config("plain", "digits/probe", ["score.rules.neighbours=50"]).task
    assert probed.score.rules == {"labels": 5, "neighbours": 50}
    mapping = run_config("plain", "digits/probe", ["score.rules={neighbours: 50}"])
    assert mapping.task == probed
    masked = run_config(
        "plain", "digits/probe", ["train.loss.name=masked", "train.loss.patch=2", "train.loss.hide=0.5"]
    )
    assert masked.task.train.loss == {"name": "masked", "patch": 2, "hide": 0.5}
    with pytest.raises(UserError, match=r"score\.rules: unknown key 'neighbour' \(did you mean 'neighbours'"):
        run_config("plain", "digits/probe", ["score.rules.neighbour=50"])
    with pytest.raises(UserError, match=r"has no score\.rules; leave them out"):
        run_config("plain", "digits", ["score.rules.neighbours=50"])


def test_it_is_hashed_as_a_task_that_says_so():
    by_hand = registry.task("digits").model_copy(
        update={"data": registry.task("digits").data.model_copy(update={"subset": Subset(per_class=10)})}
    )
    assert task("data.subset.per_class=10") == by_hand
    assert task("data.subset.per_class=10").model_dump() == by_hand.model_dump()


def test_an_unset_group_of_a_teacher_starts_from_the_tasks_own():
    own = task().train
    trained = task("pair.teachers.image.train.optimizer.lr=0.01").pair.teachers["image"].train
    assert trained.optimizer == own.optimizer.model_copy(update={"lr": 0.01})
    assert trained.schedule is None
    both = task("train.optimizer.momentum=0.5", "pair.teachers.image.train.optimizer.lr=0.01")
    assert both.pair.teachers["image"].train.optimizer.momentum == 0.5
    schedule = task("pair.teachers.image.train.schedule.name=constant").pair.teachers["image"].train.schedule
    assert schedule.name == "constant"


def test_a_group_can_be_unset_and_set_otherwise():
    few = "digits/few-shot"
    assert task("data.subset=null", of=few).data.subset is None
    assert task("data.subset=null", "data.subset.fraction=0.5", of=few).data.subset == Subset(fraction=0.5)
    assert task("data.subset.per_class=null", "data.subset.fraction=0.5", of=few).data.subset == Subset(fraction=0.5)
    with pytest.raises(UserError, match=r"is a group; set one of train\.optimizer\.name"):
        task("train.optimizer=null")


def test_every_unset_group_of_every_task_can_be_reached():
    for name in ("digits", "digits/few-shot", "digits/angle", "av-digits"):
        spec = registry.task(name)
        words = [] if spec.data.subset is not None else ["data.subset.per_class=2"]
        for role, teacher in spec.pair.teachers.items():
            for group, key in (("optimizer", "lr=0.5"), ("schedule", "warmup=1")):
                if getattr(teacher.train, group) is None:
                    words.append(f"pair.teachers.{role}.train.{group}.{key}")
        assert run_config("plain", name, words).custom


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data.subset={per_class: 10}", "type data.subset.per_class=10"),
        ("data.subset={fraction: 0.5, seed: 1}", "type data.subset.fraction=0.5 data.subset.seed=1"),
        ("data.subset={}", "type data.subset=null"),
        ("data.subset=10", "is a group; set one of data.subset.per_class"),
        ("data.subset.per_clas=10", "did you mean 'data.subset.per_class'"),
        ("data.subzet.per_class=10", "no key 'data.subzet.per_class'"),
        ("train.optimizer={lr: 1, name: adam}", "type train.optimizer.lr=1 train.optimizer.name=adam"),
        ("pair.teachers.image.train.optimizer.lrr=1", "did you mean 'pair.teachers.image.train.optimizer.lr'"),
        ("pair.teachers.sound.net=x", "no key"),
    ],
)
def test_what_is_refused_says_what_works(given, said):
    with pytest.raises(UserError) as caught:
        task(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    if "; type " in str(caught.value):
        assert task(*str(caught.value).partition("; type ")[2].split())


@pytest.mark.parametrize(
    "value",
    ["/x/w.pt#features", "/x/a=b.pt", "/x/a,b.pt", "/x/a(1).pt", "/x/[a].pt", "/x/{a}.pt", "/x/a;b&c.pt", "/x/it's.pt",
     "/x/Größe.pt", "/x/$a#.pt", '/x/"q"#.pt', "/x/a b#.pt", "#", "a=b=c", "/x/名.pt", "/x/!#.pt", "/x/`a`#.pt"],
)  # fmt: skip
def test_the_quoting_that_is_advised_works_from_a_shell(value):
    with pytest.raises(UserError) as caught:
        task(f"{WEIGHTS}={value}")
    message = str(caught.value)
    assert "needs quotes" in message
    (typed,) = shlex.split(message.partition("; type ")[2])
    assert task(typed).pair.teachers["image"].weights == value


def test_a_home_folder_is_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    with pytest.raises(UserError, match=r"holds ~ needs quotes.*'/home/someone/w\.pt'"):
        task(f"{WEIGHTS}=~/w.pt")


@pytest.mark.parametrize("text", ["train.epochs", "=1", "tr#in=1", "", "a b=1"])
def test_what_is_no_override_is_said_so(text):
    with pytest.raises(UserError, match=r"not of the form key=value|no key"):
        task(text)


def test_a_cards_own_protocol_reaches_unset_groups(monkeypatch):
    variant = Variant(about="few", own_protocol={"data.subset.per_class": 5})
    known = dict(registry.methods())
    known["kd+few"] = dataclasses.replace(known["kd"], name="kd+few", variant=variant)
    monkeypatch.setattr(registry, "methods", lambda: known)
    assert run_config("kd+few", "digits").task.data.subset == Subset(per_class=5)


def test_an_option_that_a_source_lacks_is_said_when_it_is_read():
    with pytest.raises(UserError, match=r"unknown key 'inputz' .did you mean 'inputs'"):
        data.load(task("data.options.inputz=[image]").data, data.Place(None, Path("nowhere")))
