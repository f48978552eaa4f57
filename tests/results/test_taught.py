"""What a student learns from: which of several teachers, their mean, features alone, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from records import make_record, write_records
from safetensors.torch import save_file

from kdbench import data, models
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import NotApplicable
from kdbench.data import Place
from kdbench.engine.assemble import Prepared, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.index.store import Store
from kdbench.records.files import Record, parse
from kdbench.results import cells, taught
from kdbench.runs.as_record import _models
from kdbench.specs.config import RunConfig, run_config
from kdbench.specs.task import TaskSpec
from kdbench.terminal import tables

torch.set_num_threads(1)


def two_teachers(config: RunConfig, folder: Path, **pair: Any) -> RunConfig:
    """The configuration with two teachers of one input, random weights in files."""
    body = config.task.model_dump()
    body["pair"]["teachers"] = {
        role: {"net": net, "weights": str(folder / f"{role}.safetensors")}
        for role, net in (("big", "convnet_w4"), ("small", "convnet_w2"))
    }
    body["pair"] |= pair
    torch.manual_seed(0)  # the same content at each call
    for role, teacher in body["pair"]["teachers"].items():
        save_file(models.build(teacher["net"], (1, 8, 8), 10).state_dict(), folder / f"{role}.safetensors")
    return RunConfig(config.method, TaskSpec.model_validate(body), smoke=True)


def prepared(config: RunConfig, home: Path, run: str = "run") -> Prepared:
    place = RunPlace(torch.device("cpu"), Home(home), None, home / run)
    return prepare(config, 0, place, data.load(config.task.data, Place(None, home)).head(64))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said on the terminal."""
    lines: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: lines.append(text))
    return lines


def test_a_method_for_one_teacher_says_which_of_two_it_reads(tmp_path: Path, said: list[str]) -> None:
    config = two_teachers(run_config("kd", "digits/few-shot"), tmp_path)
    found = prepared(config, tmp_path)
    assert list(found.teachers) == ["big"]
    line = "kd reads the first teacher, big (convnet_w4), and not small (convnet_w2)"
    assert said == [f"{line}; pair.ensemble=mean reads the mean of all"]


def test_the_mean_of_teachers_is_one_teacher(tmp_path: Path, said: list[str]) -> None:
    found = prepared(two_teachers(run_config("kd", "digits/few-shot"), tmp_path, ensemble="mean"), tmp_path)
    assert said == ["kd reads the mean of the teachers big (convnet_w4), small (convnet_w2)"]
    batch = found.task.wrap(found.task.rows(torch.arange(8)))
    logits = torch.stack([teacher.net(batch).logits for teacher in found.teachers.values()])
    torch.testing.assert_close(found.method.teacher(batch).logits, logits.mean(0))
    assert not any(p.requires_grad for p in found.method.teacher.parameters())
    assert not any(module.training for module in found.method.teacher.modules())
    scorer = Scorer(found.task, found.scored_against)
    assert found.ensemble == scorer.primary(found.method.teacher)["top1"]
    assert scorer.all(found.method.teacher)["teacher_agreement"] == 100


def test_a_record_names_the_teachers_of_a_mean_and_its_score(tmp_path: Path) -> None:
    config = two_teachers(run_config("kd", "digits/few-shot"), tmp_path, ensemble="mean")
    written = _models(config, prepared(config, tmp_path), {})
    assert [teacher["role"] for teacher in written["teachers"]] == ["big", "small"]
    assert written["ensemble"]["rule"] == "mean"
    one = two_teachers(run_config("kd", "digits/few-shot"), tmp_path)
    assert "ensemble" not in _models(one, prepared(one, tmp_path), {})


def test_what_is_kept_of_one_teacher_is_not_that_of_the_mean(tmp_path: Path) -> None:
    """EnergyKD keeps the teacher's energies for all runs of a task."""
    for how in ({}, {"ensemble": "mean"}):
        config = two_teachers(run_config("energykd", "digits/few-shot"), tmp_path, **how)
        found = prepared(config, tmp_path, run=str(how))
        next(iter(found.method.stages()))
        assert [entry["reused"] for entry in found.task.kept] == [False]


def test_the_mean_offers_scores_alone(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="the mean teacher offers no"):
        prepared(two_teachers(run_config("at", "digits/few-shot"), tmp_path, ensemble="mean"), tmp_path)


def test_a_mean_is_of_teachers_of_one_input() -> None:
    with pytest.raises(UserError, match="is of teachers of one input, these read audio, image"):
        run_config("kd", "ucf101/features", ["pair.ensemble=mean"])


@pytest.mark.parametrize(
    ("method", "reads"), [("kd", "logits"), ("dkd", "logits"), ("simkd", "classifier"), ("fitnet", None)]
)
def test_features_alone_are_for_methods_that_read_features(tmp_path: Path, method: str, reads: str | None) -> None:
    state = models.build("convnet_w32", (1, 8, 8), 7).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    given = f"pair.teachers.image.weights='{tmp_path}/other.safetensors#features'"
    config = run_config(method, "digits/few-shot", [given], smoke=True)
    if reads is not None:
        with pytest.raises(NotApplicable, match=rf"it reads {reads} of the image teacher, whose weights are features"):
            prepared(config, tmp_path)
        return
    found = prepared(config, tmp_path)
    assert found.teachers["image"].score is None
    assert found.scored_against == {}
    assert _models(config, found, {})["teachers"][0]["val_metric"] is None


def record(score: float, *teachers: tuple[str, float | None], **more: Any) -> Record:
    one = make_record()["models"]["teachers"][0]
    all_of_them = [{**one, "role": role, "val_metric": own} for role, own in teachers]
    return parse(make_record(score=score, models__teachers=all_of_them, **more))


def test_the_line_on_a_run_tells_how_good_its_teachers_are() -> None:
    assert ", teacher 99.20 %" in tables.run_line(record(86.0, ("image", 99.2)))
    assert ", teachers a 99.20 %, b 70.00 %" in tables.run_line(record(86.0, ("a", 99.2), ("b", 70.0)))
    mean = {"rule": "mean", "val_metric": 97.0}
    assert ", mean of 2 teachers 97.00 %" in tables.run_line(
        record(86.0, ("a", 99.2), ("b", 70.0), models__ensemble=mean)
    )
    assert "teacher" not in tables.run_line(record(86.0)) + tables.run_line(record(86.0, ("image", None)))


def test_tables_json_and_index_tell_how_good_the_teachers_are(tmp_path: Path) -> None:
    one = make_record()["models"]["teachers"][0]
    two = [{**one, "role": role, "val_metric": own} for role, own in (("a", 60.0), ("b", 65.0))]
    mean = {"rule": "mean", "val_metric": 68.0}
    for seed in (0, 1):
        write_records(tmp_path, make_record(seed=seed, score=71.0 + seed, models__teachers=two))
        write_records(
            tmp_path, make_record(seed=seed, score=50.0, models__teachers=two, models__ensemble=mean, method__name="x")
        )
    store = Store.memory(tmp_path)
    rows = {row.method: row for row in cells.rows(store)}
    assert (rows["kd"].teacher, rows["x"].teacher) == (65.0, 68.0)
    assert "its teacher is worse" in rows["kd"].remarks
    assert "its teacher is worse" not in rows["x"].remarks
    told = tables.as_json(rows["kd"])
    assert told["teacher_score"] == 65.0
    assert [(each["role"], each["arch"], each["score"]) for each in told["teachers"]] == [
        ("a", "w8", 60.0),
        ("b", "w8", 65.0),
    ]
    assert store.runs(method="x", seed=0)[0]["teacher_metric"] == 68.0


def test_a_teacher_worse_than_its_student_is_warned_of() -> None:
    line = taught.warning([record(81.25, ("image", 38.75))])
    assert line is not None
    assert "the teacher is worse than its student (top1 38.75 % against 81.25 %" in line
    assert taught.warning([record(81.25, ("image", 99.0)), record(81.25), record(81.25, ("image", None))]) is None
    assert taught.warning([record(81.25, ("a", 38.75), ("b", 99.0))]) is None
    assert taught.warning([record(81.25, ("image", 38.75), smoke=True)]) is None
    assert taught.is_worse(12.0, 9.0, higher_is_better=False)
    assert not taught.is_worse(9.0, 12.0, higher_is_better=False)
