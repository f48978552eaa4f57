"""``kdbench check TASK``: a sound task passes, and each rule can fail in its author's words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kdbench import cli
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks import check_task, tasks
from kdbench.specs import registry
from kdbench.specs.task import TaskSpec


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Changes keys of ``digits`` and gives its failed rules, without the run."""

    def check(train: bool = False, **changes: Any) -> dict[str, str]:
        body = registry.task("digits").model_dump(mode="json")
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            place = body
            for part in parents:
                place = place[part]
            place[last] = value
        spec = TaskSpec.model_validate(body)
        monkeypatch.setattr(registry, "task", lambda name: spec)
        if not train:
            monkeypatch.setattr(tasks, "trains", lambda *args: None)
        found = check_task("digits", Home(tmp_path), None, Progress.silent())
        assert [result.rule for result in found] == list(tasks.RULES)
        return {result.rule: result.message for result in found if result.outcome == "failed"}

    return check


def test_a_task_of_the_tree_passes(checked) -> None:
    assert checked(train=True, smoke={"epochs": 1, "rows": 64}) == {}


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ("baseline", {"baseline": "kdd"}, "did you mean 'kd'"),
        ("nets", {"pair__student__net": "resnet21"}, "no net is called 'resnet21' (did you mean"),
        ("augmentation", {"data__augment": ["flop"]}, "unknown augmentation 'flop' (did you mean 'flip'"),
        ("schedule", {"train__schedule": {"milestones": [40]}}, "epoch 40 is not reached in 30 epochs"),
        ("data", {"data__options": {"input": ["image"]}}, "did you mean 'inputs'"),
        ("data", {"data__source": "digit"}, "did you mean 'digits'"),
        ("inputs", {"pair__student__input": "profiles"}, "no input 'profiles'; its inputs are image"),
        ("inputs", {"pair__student__net": "convnet1d_w4"}, "choose another net"),
        ("subset", {"data__subset": {"per_class": 5000}}, "class 0 of digits"),
        ("ranked", {"ranked": True, "unranked_because": None,
                    "pair__teachers__image__min_score": None}, "needs a min_score"),
    ],
)  # fmt: skip
def test_each_rule_can_fail(checked, rule: str, changes: dict[str, Any], said: str) -> None:
    failed = checked(**changes)
    assert said in failed.get(rule, ""), failed
    assert set(failed) <= {rule, "inputs"}, failed  # a net that does not exist reads nothing either


def test_a_regression_on_classes_is_refused(checked) -> None:
    failed = checked(kind="regression", baseline="plain", score={"primary": "mae", "unit": ""})
    assert "has 10 classes" in failed["kind"]
    assert "name the target's unit" in failed["score"]


def test_a_method_that_cannot_train_on_it_is_said(checked, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(self: Any) -> None:
        raise RuntimeError("shapes do not match\nmore")

    monkeypatch.setattr(tasks.Trainer, "run", break_off)
    assert checked(train=True) == {"trains": "plain cannot train on it: RuntimeError: shapes do not match"}


def test_the_command_checks_tasks_and_suggests_both_kinds_of_names(tmp_path: Path, monkeypatch, capsys) -> None:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", "check", *words, "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out + captured.err

    monkeypatch.setattr(tasks, "trains", lambda *args: None)
    assert run("digits/few-shot") == (0, "digits/few-shot: ok, 14 rules kept, 0 broken, 0 skipped\n")
    assert "did you mean 'digits/low-res'" in run("digits/lowres")[1]
