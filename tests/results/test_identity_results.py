"""No number that is not that run's: which runs are compared, whose rows are shown, and what their costs are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipes import TEACHER, plain, protocol, tuned

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.checks import tasks as task_checks
from kdbench.engine.task import Keeper
from kdbench.engine.trainer import StageReport, Trained
from kdbench.records import files as records
from kdbench.records.validate import check_file, check_folder
from kdbench.results import cells as summary
from kdbench.results.pairing import obstacle
from kdbench.runs.as_record import _stages
from kdbench.specs.config import run_config
from kdbench.specs.score import Score

pytestmark = pytest.mark.seam


def pairs(store: Any) -> set[tuple[str, str, float]]:
    with store() as opened:
        return {(row["method"], row["reference"], row["gain"]) for row in opened.deltas() if row["delta"]}


@pytest.mark.parametrize("block", ["data", "train", "score"])
def test_no_difference_between_two_protocols(keep: Any, store: Any, block: str) -> None:
    keep(protocol(), **plain(score=70.0))
    keep(protocol(**{block: {"changed": 1}}), score=75.0, custom=True)
    assert pairs(store) == set()


def test_another_student_is_another_protocol(keep: Any, store: Any) -> None:
    keep(protocol(), **plain(score=70.0))
    keep(protocol(pair={"student": {"net": "wide", "input": "image"}, "teachers": {}}), score=75.0, custom=True)
    assert pairs(store) == set()


def test_plain_reads_no_teacher_so_any_teacher_pairs_with_it_and_none_with_another_of_kd(keep: Any, store: Any) -> None:
    keep(protocol(), **plain(score=70.0))
    keep(protocol(), score=75.0)
    other = [{**TEACHER, "weights_sha256": "b" * 64}]
    keep(protocol(teacher="file"), method__name="x", score=76.0, custom=True, models__teachers=other)
    assert pairs(store) == {("kd", "plain", 5.0), ("plain", "kd", -5.0), ("x", "plain", 6.0)}


def test_an_overridden_protocol_has_its_own_reference(keep: Any, store: Any) -> None:
    short = {"custom": True, "provenance__command": "kdbench evaluate --method m --task t --seed 0 train.epochs=1"}
    tuned = {**short, "provenance__command": short["provenance__command"] + " method.length=2"}
    keep(protocol(), **plain(score=80.0))
    keep(protocol(1), **plain(score=50.0), **short)
    keep(protocol(1), **plain(score=10.0, method__params={"length": 2}), **tuned)
    keep(protocol(1), score=53.0, **short)
    assert {found for found in pairs(store) if found[0] == "kd"} == {("kd", "plain", 3.0)}


def test_a_teacher_of_ones_own_makes_no_baseline_for_others(keep: Any, store: Any) -> None:
    """plain with 1 epoch is compared with kd with 1 epoch, not with one of the teachers tried."""
    short = {"custom": True, "provenance__command": "kdbench evaluate --method m --task t --seed 0 train.epochs=1"}
    keep(protocol(1, teacher="mine"), score=30.0, models__teachers=[{**TEACHER, "weights_sha256": "b" * 64}], **short)
    keep(protocol(1), **plain(score=50.0, **short))
    assert pairs(store) == {("kd", "plain", -20.0)}


def test_each_overridden_configuration_is_a_current_cell(keep: Any, store: Any) -> None:
    for temperature in (1.0, 2.0):
        keep(protocol(), custom=True, method__params={"temperature": temperature})
    with store() as opened:
        assert [cell["current"] for cell in opened.cells(method="kd")] == [True, True]


def test_the_words_for_a_missing_difference_follow_the_same_rule_as_the_index(keep: Any, store: Any) -> None:
    """kd is the baseline; the others differ from it in one thing each."""
    taught = [{**TEACHER, "weights_sha256": "b" * 64}]
    keep(protocol(), score=70.0, engine_version=2)
    keep(protocol(), method__name="alike", score=71.0, engine_version=2)
    keep(protocol(), **plain(score=71.0, engine_version=2))
    keep(protocol(), method__name="engine", score=72.0, engine_version=1)
    keep(protocol(), method__name="teacher", score=73.0, models__teachers=taught, engine_version=2)
    keep(protocol(1), method__name="protocol", score=73.0, engine_version=2)
    keep(protocol(), method__name="seed", score=73.0, seed=5, engine_version=2)
    with store() as opened:
        paired = {row["method"] for row in opened.deltas(reference="kd")}
        cells = {cell["method"]: cell for cell in opened.cells()}
        shown = {row.method: row for row in summary.rows(opened)}
    for name, cell in cells.items():
        assert (obstacle(cell, [cells["kd"]]) == "") == (name in paired), name
    assert {name for name, row in shown.items() if row.to_baseline is not None} == paired - {"kd"}
    words = {"engine": "another engine version", "teacher": "another teacher", "protocol": "another protocol"}
    for name, word in {**words, "seed": "no common seed"}.items():
        assert f"no Δ to kd: {word}" in shown[name].remarks


@pytest.mark.parametrize(
    ("metric", "unit", "bounds", "noise"),
    [("top1", "%", (0.0, 100.0), 5.0), ("nll", "nat", (0.0, None), None), ("ece", "%", (0.0, 100.0), None),
     ("recall5", "%", (0.0, 100.0), 5.0), ("mae", None, (0.0, None), None)],
)  # fmt: skip
def test_a_metric_owns_its_unit_bounds_and_noise(metric: str, unit: str | None, bounds: Any, noise: Any) -> None:
    found = kinds.metrics()[metric]
    assert (found.unit, found.bounds, found.noise(50.0, 100)) == (unit, bounds, noise)


def test_a_score_has_the_unit_of_its_metric() -> None:
    assert [Score(primary=name).unit for name in ("top1", "nll", "mae")] == ["%", "nat", ""]
    assert Score(primary="mae", unit="years").unit == "years"


def test_an_overridden_metric_brings_its_unit() -> None:
    config = run_config("plain", "digits/few-shot", ["score.primary=nll"])
    assert config.task.score.unit == "nat"
    assert task_checks.unit(config.task) is None


def test_a_score_at_chance_is_that_of_an_answer_which_ignores_the_input() -> None:
    labels = [0] * 60 + [1] * 25 + [2] * 15
    assert kinds.metrics()["top1"].chance(labels) == 60.0
    assert kinds.metrics()["top5"].chance(labels) == 100.0
    assert kinds.metrics()["nll"].chance([0, 1]) == pytest.approx(0.6931, abs=1e-4)
    assert kinds.metrics()["mae"].chance([0.0, 1.0, 5.0]) == pytest.approx(5 / 3)
    assert kinds.metrics()["top1"].at_chance(15.0, 10.0, 100)  # within twice the noise of 100 items, 3 points
    assert not kinds.metrics()["top1"].at_chance(15.0, 10.0, 1000)
    assert kinds.metrics()["rmse"].at_chance(2.0, 2.0, 100)
    assert not kinds.metrics()["nll"].at_chance(0.6, 0.69, 100)


def skipped(root: Path, run: str) -> tuple[Keeper, StageReport]:
    """A run that finds the GAN it needs: its stage has no step left."""
    folder = root / run
    folder.mkdir(exist_ok=True)
    return Keeper(folder, root / "shared", {"params": {}}), StageReport("gan", "generator_train", 0, 0, 0.0, True)


@pytest.mark.parametrize(("run", "basis"), [("a", "measured"), ("b", "cited")])
def test_a_stage_without_a_step_is_priced_by_the_run_that_trained_it(tmp_path: Path, run: str, basis: str) -> None:
    """Run ``a`` trained the GAN and was killed; it is taken up again without its checkpoints, or run ``b`` comes."""
    first = skipped(tmp_path, "a")[0]
    first.stages = lambda: [StageReport("gan", "generator_train", 800, 51200, 36.0, True)]
    first("gan", lambda: {"x": torch.arange(3)}, "task", "generate")
    keeper, report = skipped(tmp_path, run)
    assert keeper.recall("gan", "generate") is not None
    task = SimpleNamespace(kept=keeper.entries, ranks=SimpleNamespace(size=1))
    trained = Trained([report, StageReport("unused", "generator_train", 0, 0, 0.0, False)])
    gan, kept = _stages(SimpleNamespace(task=task), trained, None)  # type: ignore[arg-type]
    assert (gan["name"], gan["steps"], gan["device_h"], gan["basis"]) == ("gan", 800, 0.01, basis)
    assert (kept["basis"], kept["artefact_sha256"]) == (basis, keeper.entries[0]["sha256"])


def test_the_next_artefact_does_not_cite_a_stage_that_was_skipped(tmp_path: Path) -> None:
    keeper, report = skipped(tmp_path, "a")
    keeper.stages = lambda: [report, StageReport("ratio", "generator_train", 5, 5, 1.0, True)]
    keeper("ratio", lambda: {"x": torch.arange(3)}, "task", "generate")
    assert [stage["name"] for stage in keeper.entries[0]["stages"]] == ["ratio"]


def test_the_validator_refuses_a_measured_stage_without_a_step_until_the_record_is_withdrawn(
    keep: Any, make_record: Any, tmp_path: Path
) -> None:
    gan = make_record()["stages"][0] | {"name": "gan", "ledger": "generator_train", "steps": 0, "reusable": True}
    record = keep(stages=[gan, *make_record()["stages"]])
    keep(stages=[gan | {"artefact_sha256": "c" * 64}, *make_record()["stages"]], seed=1)
    path = tmp_path / "records" / f"{record.run_id}.json"

    def errors() -> list[tuple[str, str]]:
        found = [*check_folder(tmp_path / "records"), *check_file(path)]
        return [(problem.file, problem.field) for problem in found if problem.level == "error"]

    assert errors() == [(str(path), "stages.0.basis")] * 2
    records.withdraw(path, "no step")
    assert errors() == []
    with pytest.raises(UserError, match=r"was withdrawn on .*: no step"):
        records.withdraw(path, "again")


def test_a_repeat_of_a_withdrawn_run_is_none(keep: Any, tmp_path: Path) -> None:
    first, _ = keep(score=70.0), keep(score=71.0)
    folder = tmp_path / "records"
    assert any("only the earlier run counts" in problem.message for problem in check_folder(folder))
    records.withdraw(folder / f"{first.run_id}.json", "wrong split")
    assert not any("only the earlier run counts" in problem.message for problem in check_folder(folder))


FEW = ("--task", "digits/few-shot", "--seed", "0", "--overhead", "off")


def shown(run: Any, *words: str) -> list[tuple[str, float | None, dict[str, Any]]]:
    code, out, _ = run("evaluate", *FEW, "--json", *words)
    rows = json.loads(out)["rows"]
    assert code in (0, 1)
    return [(row["method"], row["score"] and row["score"]["mean"], row["overrides"]) for row in rows]


def test_evaluate_answers_with_the_run_asked_for(run: Any) -> None:
    short = shown(run, "--method", "plain", "train.epochs=1")
    longer = shown(run, "--method", "plain", "train.epochs=6")
    assert short[0][1] != longer[0][1]
    assert shown(run, "--method", "plain", "train.epochs=1") == short == [("plain", short[0][1], {"train.epochs": 1})]
    assert longer == [("plain", longer[0][1], {"train.epochs": 6})]
    failed = shown(run, "--method", "plain", "train.epochs=1", "train.optimizer.lr=1000000")
    assert failed == [("plain", None, {"train.epochs": 1, "train.optimizer.lr": 1000000.0})]
    both = json.loads(run("results", "--json")[1])
    assert [row["overrides"] for row in both] == [{"train.epochs": 6}, {"train.epochs": 1}]
    code, out, _ = run("compare", "plain train.epochs=1", "plain train.epochs=6", "--json")
    (pair,) = json.loads(out)
    assert (code, pair["first"]["score"]["mean"], pair["delta"]) == (0, short[0][1], None)
    assert "another protocol" in pair["verdict"]


def known(code: str, data: str = "d") -> dict[str, Any]:
    return {"code": {"kd": code}, "nets": {"resnet8x4": "1"}, "data": data * 64, "weights": {}}


def test_a_repeat_names_the_run_of_its_own_code_and_rows_of_one_name_say_their_code(keep: Any, store: Any) -> None:
    changed = {"custom": True, "task__data": []}
    other = keep(seed=0, identity=known("0.9.0+0123456789abcdef"), created_at="2020-01-01T00:00:00Z", **changed)
    first = keep(seed=0, identity=known("1.0.0"), created_at="2020-01-02T00:00:00Z", **changed)
    again = keep(seed=0, identity=known("1.0.0"), created_at="2020-01-03T00:00:00Z", **changed)
    with store() as index:
        (row,) = [row for row in summary.rows_of_runs(index, [again]) if row.repeats]
        assert row.repeats == first.run_id
        told = {row.run_ids[0]: row.remarks for row in summary.rows(index)}
    assert "code of kd 1.0.0" in told[first.run_id]
    assert "code of kd 0.9.0+01234567" in told[other.run_id]
    assert not any("resnet8x4" in word or "data" in word for words in told.values() for word in words)


def test_a_repeat_is_shown_and_not_counted_until_the_first_is_withdrawn(run: Any, tmp_path: Path) -> None:
    words = ("evaluate", *FEW, "--method", "plain", "train.epochs=1", "--json")
    first = json.loads(run(*words)[1])["rows"][0]["run_ids"]
    _, out, err = run(*words, "--force")
    (row,) = json.loads(out)["rows"]
    assert row["run_ids"] != first
    assert row["remarks"][0] == f"a repeat: {first[0][:8]} counts"
    assert f"records withdraw {first[0][:12]}" in err
    assert json.loads(run("results", "--json")[1])[0]["run_ids"] == first
    assert run("records", "withdraw", first[0][:12], "--reason", "test")[0] == 0
    assert json.loads(run("results", "--json")[1])[0]["run_ids"] == row["run_ids"]


def test_a_study_of_a_hyper_parameter_is_seen_and_compared(keep: Any, run: Any) -> None:
    for seed in (0, 1):
        keep(score=70.0 + seed, seed=seed)
        best = keep(score=74.0 + seed, seed=seed, ratio=4.0, **tuned(10.0))
        keep(score=30.0 + seed, seed=seed, **tuned(100.0))
    rows = {json.dumps(row["overrides"]): row for row in json.loads(run("results", "--json")[1])}
    found = {row["overrides"].get("method.attention_weight"): row["score"]["mean"] for row in rows.values()}
    assert found == {10.0: 74.5, 100.0: 30.5, None: 70.5}
    for words in ("at method.attention_weight=10", "at attention_weight=10.0", best.run_id, best.run_id[:12]):
        code, out, _ = run("compare", words, "kd", "--json")
        (pair,) = json.loads(out)
        assert (code, pair["first"]["score"]["mean"], pair["delta"]["mean"], pair["delta"]["n"]) == (0, 74.5, -4.0, 2)
    code, out, _ = run("compare", "kd", "at method.attention_weight=10", "--json")
    (pair,) = json.loads(out)
    assert pair["recipe_ratio"] == pytest.approx(2.0, rel=0.05)
    assert pair["verdict"].endswith("the recipe of at method.attention_weight=10 costs 2 times that of kd")


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        (("at method.attention_weight=7", "kd"), "there are at method.attention_weight=10"),
        (("at", "kd"), "no results of at without overrides"),
        (("at method.atention_weight=10", "kd"), "did you mean"),
        (("kd", "kd"), "are the same runs"),
        (("kd", "0123456789abcdef"), "no run that counts begins with 0123456789abcdef"),
        (("kd", "at 'x"), "not of the form"),
    ],
)
def test_a_side_that_cannot_be_had_is_said_in_a_line(keep: Any, run: Any, sides: tuple[str, str], said: str) -> None:
    keep()
    keep(**tuned(10.0))
    code, _, err = run("compare", *sides)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_results_of_one_method_keep_their_differences(keep: Any, run: Any) -> None:
    keep(**plain(score=70.0))
    keep(score=75.0)
    keep(method__name="x", score=77.0)
    (row,) = json.loads(run("results", "--method", "kd", "--json")[1])
    assert (row["method"], row["delta_plain"]["mean"]) == ("kd", 5.0)


def test_an_edited_task_file_does_not_answer_for_the_present_one(keep: Any, store: Any) -> None:
    """Two configurations of one name: what was run under the older one says so."""
    own = run_config("plain", "digits/few-shot").spec()["protocol"]
    changed = {**own, "train": {**own["train"], "epochs": 7}}
    name = {"task__name": "digits/few-shot", "method__params": {"length": 1.0}}
    for seed in (0, 1):
        keep(changed, **plain(score=30.0, seed=seed, **name))
    keep(own, **plain(score=78.0, **name))
    with store() as opened:
        assert [row.score.mean for row in summary.rows(opened) if row.score and row.current] == [78.0]
        found = {row.score.mean: row.remarks for row in summary.rows(opened) if row.score}
    assert found[30.0][0] == "an older task file or card: train.epochs=7"
    assert not any("older" in remark for remark in found[78.0])
