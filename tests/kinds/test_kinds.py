"""Kinds of tasks: found by name, whole in a file; one from outside goes everywhere that those here go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from plugged import CACHES, kdbench, plugged

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.contract import Batch, NotApplicable, Out, Ragged
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.task import TaskSpec

SUPPORT = Path(__file__).parents[1] / "support"
TASK = {
    "title": "Which primes divide a digit", "version": 1, "kind": "multilabel", "suite": "divisors", "ranked": False,
    "unranked_because": "it is a test", "baseline": "plain", "data": {"source": "divisors", "augment": []},
    "pair": {
        "student": {"net": "convnet_w4"},
        "teachers": {"image": {"net": "convnet_w8", "train": {"epochs": 4}}},
    },
    "train": {"epochs": 3, "batch": 50, "optimizer": {"name": "adam", "lr": 0.01}},
    "score": {"primary": "exact", "also": ["hamming"]}, "seeds": [0, 1], "cpu_threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of one module with the kind, its data, and a task."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copy(SUPPORT / "toy_kind.py", folder / "toy_kind.py")
    (folder / "toy_tasks").mkdir()
    (folder / "toy_tasks" / "__init__.py").touch()
    (folder / "toy_tasks" / "divisors.yaml").write_text(yaml.safe_dump(TASK))
    project = {"kinds": "multilabel = 'toy_kind'", "sources": "divisors = 'toy_kind'", "tasks": "toy = 'toy_tasks'"}
    groups = "\n".join(f'[project.entry-points."kdbench.{group}"]\n{entry}' for group, entry in project.items())
    (folder / "pyproject.toml").write_text(f'[project]\nname = "toy-kind"\nversion = "1.0.0"\n{groups}\n')
    return folder


@pytest.fixture
def installed(outside: Path, tmp_path: Path) -> Any:
    shutil.copytree(outside, tmp_path / "package")
    with plugged(tmp_path / "package"):
        yield


def test_kinds_by_name() -> None:
    assert {"classification", "hashing", "regression", "representation"} <= set(kinds.names())
    assert kinds.kind("crossmodal") is kinds.kind("classification")  # what older task files and records say
    with pytest.raises(UserError, match="did you mean 'regression'"):
        kinds.kind("regresion")
    with pytest.raises(ValueError, match="unknown kind of task 'detektion'"):
        TaskSpec.model_validate({**registry.task("digits/few-shot").model_dump(), "kind": "detektion"})
    with pytest.raises(ValueError, match="metric 'mae' is not one of a classification task"):
        TaskSpec.model_validate(
            {**registry.task("digits/few-shot").model_dump(), "score": {"primary": "top1", "also": ["mae"]}}
        )


def test_who_serves_which_kind() -> None:
    assert kinds.serves(None, "regression")
    assert kinds.serves(frozenset({"crossmodal"}), "classification")
    assert not kinds.serves(frozenset({"classification"}), "regression")


def test_targets_of_unequal_length() -> None:
    rows = [[1, 2], [], [3], [4, 5, 6]]
    made = Ragged.of(rows, torch.int64)
    assert len(made) == 4
    assert made.tolist() == rows
    assert made[torch.tensor([3, 1, 0, 0])].tolist() == [[4, 5, 6], [], [1, 2], [1, 2]]
    assert made[1:3].tolist() == [[], [3]]
    assert made.repeat(2).tolist() == rows * 2
    assert made.join(made[:1]).tolist() == [*rows, [1, 2]]
    assert made.row.tolist() == [0, 0, 2, 3, 3, 3]
    batch = Batch({"image": torch.zeros(8, 1)}, made.repeat(2), torch.arange(4).repeat(2), views=2)
    assert batch.view(1).y.tolist() == rows
    with pytest.raises(ValueError, match="counts sum to 3"):
        Ragged(torch.zeros(2), torch.tensor([1, 2]))


@pytest.mark.usefixtures("installed")
def test_a_kind_from_outside_trains_scores_resumes_and_is_recorded(tmp_path: Path) -> None:
    def evaluate(home: Home, method: str, **more: Any) -> Any:
        config = run_config(method, "divisors")
        return run.run_seed(Request(config, 0, torch.device("cpu"), home, overhead="off", **more))

    plain = evaluate(Home(tmp_path / "calm"), "plain")
    assert plain.status == "ok", plain.error
    assert plain.task.kind == "multilabel"
    assert 0 <= plain.metrics.last["exact"] <= 100
    assert plain.metrics.last["hamming"] < 35  # four classes; always saying no is wrong for 2 in 5
    assert plain.task.chance is None
    fitnet = evaluate(Home(tmp_path / "calm"), "fitnet")
    assert fitnet.status == "ok", fitnet.error
    refused = evaluate(Home(tmp_path / "calm"), "kd")
    assert (refused.status, refused.error.message) == (
        "not_applicable", "it runs on classification and segmentation tasks, this one is a multilabel task",
    )  # fmt: skip
    stormy = Home(tmp_path / "stormy")
    again = killed_and_resumed(lambda: evaluate(stormy, "fitnet", checkpoint_seconds=0.0))
    assert again.deploy.export_sha256 == fitnet.deploy.export_sha256


def killed_and_resumed(evaluate: Any) -> Any:
    """A run that ends without a word after its first epoch, and is asked for again."""
    from kdbench.engine.trainer import Trainer

    class Killed(BaseException):
        pass

    point, seen = Trainer._point, []

    def killed(self: Any, *args: Any) -> None:
        point(self, *args)
        seen.append(self)
        if len(seen) == 6:  # four of the teacher, two of the student
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_point", killed)
        with pytest.raises(Killed):
            evaluate()
    return evaluate()


@pytest.mark.usefixtures("installed")
def test_the_contract_is_checked_on_a_kind_from_outside() -> None:
    from kdbench.checks import check_method

    results = check_method("fitnet", tasks=["multilabel"])
    assert [r for r in results if r.outcome == "failed"] == []
    assert {r.task for r in results} == {"", "multilabel"}


@pytest.mark.slow
def test_a_kind_from_outside_goes_through_every_command(outside: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    package = tmp_path / "package"
    shutil.copytree(outside, package)
    from plugged import metadata

    metadata(package)

    def ran(*words: str, code: int = 0) -> str:
        done = kdbench(home, *words, folders=(package,))
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    assert "divisors" in ran("list", "tasks")
    assert "multilabel task" in ran("show", "task", "divisors")
    assert "0 broken" in ran("check", "divisors")
    for method in ("plain", "at"):
        ran("evaluate", "-m", method, "-t", "divisors", "--overhead", "quick")
    ran("evaluate", "-m", "kd", "-t", "divisors", "--overhead", "off", code=3)
    ran("sweep", "--methods", "plain,fitnet,kd", "--tasks", "divisors", "--overhead", "off")
    ran("records", "validate", str(home / "records"))
    record = next(
        path for path in (home / "records").glob("*.json") if json.loads(path.read_text())["method"]["name"] == "at"
    )
    assert "same bits" in ran("verify", str(record), "--replay")
    assert "exact" in ran("results")
    ran("compare", "plain", "at", "--task", "divisors")
    ran("site", "build", "--records", str(home / "records"), "--out", str(tmp_path / "board"))
    page = (tmp_path / "board" / "site" / "tasks" / "divisors@v1.html").read_text()
    assert "multilabel" in page
    assert "exact" in page


def test_the_caches_of_a_registry_are_all_cleared() -> None:
    """What :func:`plugged` forgets is what looks plug-ins up."""
    assert kinds._modules in CACHES
    assert kinds.metrics in CACHES


def test_an_adapter_of_before_may_give_the_targets_alone() -> None:
    from kdbench.checks.tiny import Setting, rows, task_spec
    from kdbench.engine.task import Keeper, Task

    of = Setting("classification", ("image",), False, "image", "convnet_w2", "convnet_w2")
    task = Task(task_spec(of), rows(of), torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))
    batch = task.wrap(task.rows(torch.arange(4)))
    out = Out(torch.randn(4, 10))
    with pytest.warns(FutureWarning, match=r"give it the batch, task\.loss\(out, batch\)"):
        old = task.loss(out, batch.y)  # type: ignore[arg-type]
    assert torch.equal(old, task.loss(out, batch))


def test_a_method_for_no_kind_here_does_not_apply() -> None:
    from kdbench.contract import Needs
    from kdbench.engine.applicability import kind_and_roles

    with pytest.raises(NotApplicable, match="it runs on detection tasks, this one is a classification task"):
        kind_and_roles(Needs(kinds=frozenset({"detection"})), registry.task("digits/few-shot"))
