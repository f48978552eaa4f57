"""``kdbench tune``: what is searched and where, which rows are scored, what is kept, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from entries import an_entry
from pydantic import ValidationError
from sweeps import tiny_pictures

from kdbench import cli
from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.yamlfile import describe
from kdbench.contract import Rows
from kdbench.data.sources import digits, digits_angle
from kdbench.engine.assemble import students_rows
from kdbench.engine.teachers import teacher_spec
from kdbench.records.files import load
from kdbench.runs import verify
from kdbench.specs import local, registry, tuned
from kdbench.specs.card import HyperParameter
from kdbench.specs.config import run_config
from kdbench.specs.data import Subset
from kdbench.sweep.devices import Where
from kdbench.sweep.known import Known
from kdbench.sweep.plan import Asked, Run, plan
from kdbench.sweep.rounds import Outcome, Sweep
from kdbench.tune import points as of_points
from kdbench.tune import report
from kdbench.tune.points import Points, words
from kdbench.tune.search import Search, Trial
from kdbench.tune.space import RATE, Dimension, of_teachers, space

pytest.importorskip("optuna")
TASK = "digits/few-shot"
VALIDATION = ("data.validation.fraction=0.2", "data.validation.seed=0")


def test_the_rate_is_searched_for_every_method_and_the_same_range() -> None:
    plain, kd = (space(run_config(name, TASK)) for name in ("plain", "kd"))
    assert plain == [Dimension(RATE, 0.2, 0.05, 0.8, log=True)]
    assert kd[0] == plain[0]
    assert [(one.key, one.low, one.high) for one in kd[1:]] == [
        ("method.temperature", 1.0, 16.0), ("method.ce_weight", 0.025, 0.4), ("method.kd_weight", 0.225, 3.6),
    ]  # fmt: skip


def test_ranges_stay_within_a_cards_bounds_and_what_is_no_positive_number_stays() -> None:
    found = {one.key: one for one in space(run_config("pskd", TASK))}
    assert (found["method.alpha"].low, found["method.alpha"].high) == (0.2, 1.0)
    assert [one.key for one in space(run_config("compress", "digits/probe"))] == [
        RATE, "method.temperature", "method.momentum",
    ]  # fmt: skip


def test_a_stated_range_goes_as_far_as_the_given_value() -> None:
    def of(method: str, key: str, task: str = TASK, *words_: str) -> tuple[float, float, bool]:
        (one,) = [one for one in space(run_config(method, task, words_)) if one.key == f"method.{key}"]
        return one.low, one.high, one.log

    assert of("ofd", "feature_weight") == (1e-4, 1e-3, True)
    assert of("cgan_kd", "kappa") == (1.0, 5.0, False)
    assert of("reviewkd", "review_weight", TASK, "method.review_weight=30") == (0.6, 30.0, True)
    assert of("reviewkd", "review_weight", TASK, "method.review_weight=0") == (0.6, 8.0, True)
    assert all(one.source for one in space(run_config("lwr", TASK)))


def test_a_card_may_say_where_to_look() -> None:
    given = {"default": 4, "doc": "words", "search": {"low": 1, "high": 9, "source": "table 3"}}
    assert HyperParameter.model_validate(given).search is not None
    for wrong, line in [
        ({"low": 9, "high": 1}, "goes from low to high, not from 9 to 1"),
        ({"low": 0, "high": 1, "log": True}, "begins above 0"),
        ({"low": 1}, "either low and high, or choices"),
        ({"low": 1, "high": 2, "choices": [1, 2]}, "either low and high, or choices"),
    ]:
        with pytest.raises(ValidationError, match=line):
            HyperParameter.model_validate({**given, "search": {**wrong, "source": "x"}})
    with pytest.raises(ValidationError, match="must be at most 4"):
        HyperParameter.model_validate({**given, "max": 4})
    with pytest.raises(ValidationError) as error:
        HyperParameter.model_validate({**given, "search": {"low": 9, "high": 1, "source": "x"}})
    assert describe(error.value, HyperParameter).startswith("search: a search goes from low to high, not from 9 to 1")


def tried(method: str, count: int) -> list[dict[str, Any]]:
    points = Points(space(run_config(method, TASK)), "qmc", True)
    found = []
    for number in range(count):
        found.append(points.next())
        points.tell(float(number))
    return found


def test_the_given_values_come_first_and_shared_settings_have_the_same_points() -> None:
    kd, plain, dkd = tried("kd", 6), tried("plain", 6), tried("dkd", 6)
    assert kd[0] == {RATE: 0.2, "method.temperature": 4.0, "method.ce_weight": 0.1, "method.kd_weight": 0.9}
    assert [one[RATE] for one in kd] == [one[RATE] for one in plain] == [one[RATE] for one in dkd]
    assert len({one[RATE] for one in kd}) == 6
    assert kd == tried("kd", 6)
    assert all(0.05 <= one[RATE] <= 0.8 for one in kd)


def test_values_asked_for_at_once_are_those_of_one_after_another() -> None:
    points = Points(space(run_config("kd", TASK)), "qmc", True)
    assert points.independent
    at_once = [points.next() for _ in range(6)]
    for score in (1.0, None, 3.0, 2.0, 5.0, None):
        points.tell(score)
    assert at_once == tried("kd", 6)
    assert not Points(space(run_config("kd", TASK)), "tpe", True).independent


@pytest.mark.parametrize("method", ["kd", "plain", "reviewkd"])
def test_a_published_search_would_try_the_same_values_again(method) -> None:
    """As far as a card's ranges are those it was made with."""
    folder = plugins.package_folder(registry.method(method).package) / tuned.FOLDER / "digits__few-shot"
    entry = json.loads((folder / f"{method}.tuned-8.json").read_text())
    assert [trial["values"] for trial in entry["trials"]] == tried(method, 8)


def test_tpe_learns_from_what_it_is_told_and_failed_trials_do_no_harm() -> None:
    points = Points([Dimension("a", 1.0, 0.5, 2.0, log=True), Dimension("b", "x", choices=("x", "y"))], "tpe", False)
    for number in range(4):
        values = points.next()
        assert 0.5 <= values["a"] <= 2.0
        points.tell(None if number % 2 else values["a"])


def test_validation_rows_are_training_rows_that_no_student_sees() -> None:
    data = digits.load({})
    config = run_config("kd", TASK, VALIDATION)
    one, other = (students_rows(config, seed, data) for seed in (0, 1))
    assert torch.equal(one.test.x["image"], other.test.x["image"])
    assert len(one.test.y) == 199  # a fifth of each class
    assert not torch.equal(one.train.x["image"], other.train.x["image"])
    held = {row.numpy().tobytes() for row in one.test.x["image"]}
    for rows in (one, other):
        assert len(rows.train.y) == 100
        assert not held & {row.numpy().tobytes() for row in rows.train.x["image"]}
    assert one.whole is not None
    assert len(one.whole.y) == 801


def test_poisoned_test_labels_change_nothing() -> None:
    data = digits.load({})
    poisoned = replace(data, test=Rows({"image": data.test.x["image"].flip(0)}, (data.test.y + 1) % 10))
    config = run_config("kd", TASK, VALIDATION)
    one, other = (students_rows(config, 0, rows) for rows in (data, poisoned))
    for part in ("train", "test"):
        assert one.digest(part) == other.digest(part)


def test_rows_without_classes_are_drawn_from_all() -> None:
    data = digits_angle.load({})
    held = data.validated(Subset(fraction=0.2, seed=0))
    assert len(held.test.y) == round(0.2 * len(data.train.y))
    assert len(held.test.y) + len(held.train.y) == len(data.train.y)
    with pytest.raises(UserError, match=r"data\.validation: 1000 of the 1000 training rows .* and 0 trained on"):
        digits.load({}).validated(Subset(per_class=None, rows=1000))
    with pytest.raises(UserError, match=r"data\.validation: class 0 .* 500 a class are asked for"):
        digits.load({}).validated(Subset(per_class=500))


def test_an_unset_validation_is_not_in_what_is_hashed() -> None:
    assert "validation" not in run_config("kd", TASK).spec()["protocol"]["data"]
    assert run_config("kd", TASK, VALIDATION).custom


def test_the_teacher_stays_what_it_is_whatever_the_rate() -> None:
    config = run_config("kd", TASK)
    fixed = of_teachers(config)
    changed = run_config("kd", TASK, [*VALIDATION, f"{RATE}=0.05", *words(fixed)])
    assert changed.task.train.optimizer.lr == 0.05
    one, other = (teacher_spec(c.task, c.task.pair.teachers["image"], False) for c in (config, changed))
    assert one == other


def a_search(tmp_path: Path, scores: list[dict[int, float]], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Search:
    asked = Asked((), (), Home(tmp_path), seeds=changes.pop("seeds", (1000, 1001)))
    search = Search(
        asked, "kd", TASK, len(scores), changes.pop("sampler", "qmc"), Where(("cpu",), lambda found: True, 1),
        say=lambda line: None,
    )  # fmt: skip
    given, reason = iter(scores), changes.pop("reason", "not finite by step 3")

    def fake(changed: list[dict[str, Any]], sets: list[dict[str, Any]]) -> tuple[list[Trial], str]:
        made = []
        for overrides, values, found in zip(changed, sets, given, strict=False):
            ids = tuple(f"{seed:032x}" for seed in found)
            made.append(Trial(values, overrides, found, ids, 0.5))
        return made, "" if all(trial.scores for trial in made) else reason

    monkeypatch.setattr(search, "_tried", fake)
    return search


def test_the_best_mean_wins_and_trials_that_lack_a_seed_are_out(tmp_path, monkeypatch) -> None:
    scores = [{1000: 80.0, 1001: 82.0}, {1000: 99.0}, {1000: 85.0, 1001: 83.0}, {}]
    search = a_search(tmp_path, scores, monkeypatch)
    best = search.run()
    assert best is search.done[2]
    kept = json.loads(search.file.read_text())
    assert kept["best"] == 2
    assert kept["values"][RATE] == best.values[RATE]
    assert kept["values"]["pair.teachers.image.train.optimizer.lr"] == 0.2
    assert [trial["score"] for trial in kept["trials"]] == [81.0, None, 84.0, None]
    assert kept["hours"] == 2.0
    assert kept["task"] == {"name": TASK, "version": 1}
    assert search.file == tmp_path / "tuned" / "digits__few-shot" / "kd.tuned-4x2.json"
    assert kept["cards"] == {"kd": registry.method("kd").card.version}
    assert kept["searched"][RATE] == {"given": 0.2, "low": 0.05, "high": 0.8, "log": True, "choices": None}
    printed = "\n".join(line for line in report.answer(search) if isinstance(line, str))
    assert f"kdbench evaluate --method kd --task {TASK} --ruleset tuned-4x2" in printed


def test_the_command_names_a_task_by_the_path_it_was_given_by(tmp_path, monkeypatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(registry.task_files()[TASK].read_text())
    monkeypatch.chdir(tmp_path)
    search = a_search(tmp_path, [{1000: 1.0, 1001: 1.0}, {1000: 2.0, 1001: 2.0}], monkeypatch)
    search.task = local.task("./mine.yaml")
    search.asked = replace(search.asked, overrides=("train.epochs=3",))
    search.run()
    (printed,) = [line for line in report.answer(search) if isinstance(line, str) and "kdbench evaluate" in line]
    assert " --task ./mine.yaml train.epochs=3 --ruleset tuned-2" in printed


def sweeps_of(search: Search, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What the sweeps of a search are asked for; none leaves a record."""
    asked: list[Asked] = []
    monkeypatch.undo()
    monkeypatch.setattr(Sweep, "run", lambda self: asked.append(self.asked) or Outcome())
    with pytest.raises(UserError, match="none of 3 trials gave a score; its runs left no record"):
        search.run()
    return asked


def test_trials_spread_evenly_are_one_sweep_and_those_that_learn_one_each(tmp_path, monkeypatch) -> None:
    (asked,) = sweeps_of(a_search(tmp_path, [{}] * 3, monkeypatch), monkeypatch)
    assert [change.called for change in asked.changes] == ["trial 1/3", "trial 2/3", "trial 3/3"]
    assert asked.changes[0].overrides == ()
    rates = [word for change in asked.changes[1:] for word in change.overrides if word.startswith(f"{RATE}=")]
    assert rates == [f"{RATE}={values[RATE]}" for values in tried("kd", 3)[1:]]
    assert asked.seeds == (1000, 1001)
    assert "data.validation.fraction=0.2" in asked.overrides
    known = Known()
    cells = plan(replace(asked, overhead="off"), known, asked.methods)
    assert len({cell.spec_hash for cell in cells}) == 3
    assert Run(cells[1], 1000).label == "kd, trial 2/3 on digits/few-shot, seed 1000"
    one_each = sweeps_of(a_search(tmp_path, [{}] * 3, monkeypatch, sampler="tpe"), monkeypatch)
    assert [[change.called for change in one.changes] for one in one_each] == [
        ["trial 1/3"], ["trial 2/3"], ["trial 3/3"],
    ]  # fmt: skip


def test_nothing_better_says_so(tmp_path, monkeypatch) -> None:
    search = a_search(tmp_path, [{1000: 80.0, 1001: 82.0}, {1000: 80.0, 1001: 81.0}], monkeypatch)
    assert search.run() is search.done[0]
    assert "no values were better than those given" in list(report.answer(search))


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_values_that_a_method_refuses_are_a_trial_without_a_score(sampler, tmp_path, monkeypatch) -> None:
    scores = [{1000: 80.0, 1001: 82.0}, {}, {1000: 85.0, 1001: 83.0}]
    why = "not applicable: least_share is above greatest_share; exchange them"
    search = a_search(tmp_path, scores, monkeypatch, reason=why, sampler=sampler)
    assert search.run() is search.done[2]
    assert [trial["score"] for trial in json.loads(search.file.read_text())["trials"]] == [81.0, None, 84.0]
    search = a_search(tmp_path, [{}, {1000: 1.0, 1001: 1.0}], monkeypatch, reason=why, sampler="tpe")
    with pytest.raises(UserError, match="kd on digits/few-shot: not applicable: least_share is above"):
        search.run()


def test_all_failed_is_one_line(tmp_path, monkeypatch) -> None:
    search = a_search(tmp_path, [{}, {}], monkeypatch)
    with pytest.raises(UserError, match=r"kd on digits/few-shot: none of 2 trials gave a score; not finite by step 3"):
        search.run()
    assert not search.asked.home.tuned.exists()


def test_runs_that_are_all_refused_leave_their_reason(tmp_path, monkeypatch) -> None:
    search = a_search(tmp_path, [{}], monkeypatch)
    monkeypatch.undo()
    refused = Outcome(refused={"kd on digits/few-shot, seed 1000": "no net is called 'mlp'"})
    monkeypatch.setattr(Sweep, "run", lambda self: refused)
    with pytest.raises(UserError, match="none of 1 trials gave a score; no net is called 'mlp'"):
        search.run()
    assert not search.asked.home.records.exists()


def test_seeds_of_the_results_are_refused(tmp_path, monkeypatch) -> None:
    search = a_search(tmp_path, [{}], monkeypatch, seeds=(1000, 3))
    with pytest.raises(UserError, match=r"--seeds: 3 are seeds of the results of digits/few-shot"):
        search.run()


def test_without_optuna_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(of_points.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"kdbench tune needs optuna: pip install 'kdbench\[tune\]'"):
        of_points.require()


def verb(*words_: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kdbench", *words_], capture_output=True, text=True, check=False)


def kdbench(*words_: str) -> subprocess.CompletedProcess[str]:
    return verb("tune", *words_)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("-m", "kd", "-t", TASK, "--trials", "0"), "--trials"),
        (("-t", TASK), "give --method or --all"),
        (("-m", "kd", "--all", "-t", TASK), "give --method or --all"),
        (("-m", "kd", "-t", TASK, "--seeds", "1", "--dry-run"), "--seeds: 1 are seeds of the results"),
        (
            ("-m", "kd", "-t", TASK, "tuning.fraction=0.3", "--dry-run"),
            "which rows a search scores stands in",
        ),
        (("-m", "kd", "-t", "digits/probe", "--dry-run"), "kd on digits/probe: not applicable: it runs on"),
        (("-m", "plain@kd", "-t", TASK, "--dry-run"), "takes its length from results as published"),
        (("-m", "kd", "-t", TASK, "--device", "cpu", "--jobs", "2"), "basic does one run at a time, not 2"),
        (("-m", "kd", "-t", TASK, "--launcher", "jobli"), "--launcher 'jobli' is not known"),
    ],
)
def test_what_cannot_be_searched_is_one_line(given, line, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["kdbench", "tune", *given, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert line in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_on_poisoned_test_rows_is_the_same_and_is_not_run_twice(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for name in ("as-it-is", "poisoned"):
        folder = tiny_pictures(tmp_path / name)
        if name == "poisoned":
            path = folder / "mnist" / "test.parquet"
            table = pq.read_table(path)
            labels = pa.array(np.roll(table["label"].to_numpy(), 1))
            pq.write_table(table.set_column(1, "label", labels), path)
        words_ = [
            "-m", "kd", "-t", "mnist", "--trials", "2", "--smoke", "--device", "cpu", "--data", str(folder), "--json",
            "--out", str(tmp_path / f"home-{name}"), "pair.teachers.image.min_score=null",
        ]  # fmt: skip
        done = kdbench(*words_)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)[0])
        before = sorted((tmp_path / f"home-{name}" / "records").iterdir())
        assert json.loads(kdbench(*words_).stdout)[0]["trials"] == found[-1]["trials"]
        assert sorted((tmp_path / f"home-{name}" / "records").iterdir()) == before
    one, other = found
    assert [trial["scores"] for trial in one["trials"]] == [trial["scores"] for trial in other["trials"]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_was_found_is_evaluated_swept_and_verified(tmp_path: Path) -> None:
    """A run takes the values, says so in its record, is found again, and is made anew from the record alone."""
    home = Home(tmp_path)
    entry = an_entry("kd", TASK, {RATE: 0.1, "method.temperature": 2.0}, smoke=True)
    tuned.keep(entry, home)
    given = f"-t {TASK} --smoke --device cpu --out {tmp_path} --ruleset tuned-2".split()
    unmeasured = (*given, "--overhead", "off")
    done = verb("evaluate", "-m", "kd", "--seed", "0", "--json", *unmeasured)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["ruleset"] == "tuned-2"
    assert row["remarks"][0].startswith(
        "searched: method.ce_weight=0.1, method.kd_weight=0.9, method.temperature=2, tr"
    )
    (path,) = home.records.glob("*.json")
    record = load(path)
    assert record.protocol.lr == 0.1
    assert record.method.params["temperature"] == 2.0
    assert record.search is not None
    assert record.search.entry == entry.tuned.entry
    tuned.keep(entry.model_copy(update={"cards": {"kd": "0.1.0"}}), home)  # the record needs its entry no more
    assert verify.config_of(record).spec_hash == record.spec_hash
    done = verb("sweep", "-m", "kd", *unmeasured)
    assert "card kd was version 0.1.0" in " ".join(done.stdout.split())
    tuned.keep(entry, home)
    done = verb("sweep", "-m", "kd", "--seeds", "0-1", *unmeasured)
    assert done.returncode == 0, done.stderr
    assert len(list(home.records.glob("*.json"))) == 2
    assert verb("evaluate", "-m", "kd", "--seed", "1000", *unmeasured).returncode == 2
    done = verb("evaluate", "-m", "kd", "--seed", "2", *given, "--overhead", "quick", "--json")
    assert done.returncode == 0, done.stderr
    measured = next(one for one in map(load, home.records.glob("*.json")) if one.seed == 2).measured
    assert measured is not None
    (row,) = json.loads(done.stdout)["rows"]  # the cell of searched values has a cost: that of one more seed
    assert row["overhead"]["step_ratio"] == measured.step_ratio
    assert row["totals_h"]["search_h"] == entry.hours


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_searches_at_once_of_which_one_is_killed_run_no_trial_twice(tmp_path: Path) -> None:
    home = Home(tmp_path)
    words_ = ["-m", "plain", "-t", TASK, "--trials", "3", "--smoke", "--device", "cpu", "--out", str(tmp_path)]
    words_ += ["--launcher", "joblib", "--jobs", "2"]
    command = [sys.executable, "-m", "kdbench", "tune", *words_]
    one, other = (subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2))
    while one.poll() is None and not list(home.records.glob("*.json")):
        time.sleep(0.05)
    one.kill()
    assert other.wait() == 0
    first = {path.name: path.read_bytes() for path in home.records.glob("*.json")}
    done = kdbench(*words_, "--json")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in home.records.glob("*.json")} == first
    runs = [load(path) for path in home.records.glob("*.json")]
    assert len(runs) == len({run.spec_hash for run in runs}) == 3
    (entry,) = json.loads(done.stdout)
    assert sorted(run for trial in entry["trials"] for run in trial["run_ids"]) == sorted(run.run_id for run in runs)
    assert [path.name for path in (tmp_path / "tuned" / "digits__few-shot").iterdir()] == ["plain.tuned-3.smoke.json"]
