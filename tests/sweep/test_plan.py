"""Sweeps: names, plans and compute-matched plain; whole sweeps are in test_sweep_slow.py."""

from __future__ import annotations

import pytest
from entries import RATE_FOUND, an_entry
from planned import CPU, TASK, asked, cells, printed, sweep

from kdbench.base.errors import UserError
from kdbench.records.files import load
from kdbench.specs import registry, tuned
from kdbench.specs.config import run_config
from kdbench.sweep import names, report
from kdbench.sweep.known import Known
from kdbench.sweep.plan import inapplicable, plan, waves

# names


def test_names_patterns_and_all():
    assert names.method_names("reviewkd,kd") == ["reviewkd", "kd"]
    assert names.method_names("all") == list(registry.methods())
    assert names.method_names("kd,all").count("kd") == 1
    assert set(names.method_names("crd*")) == {name for name in registry.methods() if name.startswith("crd")}
    assert names.task_names("digits*,mnist") == [n for n in registry.task_files() if n.startswith("digits")] + ["mnist"]


def test_patterns_of_compute_matched_variants():
    found = names.method_names("plain@crd*")
    assert found == [f"plain@{name}" for name in registry.methods() if name.startswith("crd")]
    assert "plain@plain" not in names.method_names("plain@*")
    assert names.method_names("plain@kd") == ["plain@kd"]
    assert not any(name.startswith("plain@") for name in names.method_names("*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("kdd", "did you mean 'kd'"), ("zz*", "nothing is named like 'zz"), ("kd,", "empty name"), ("plain@kdd", "plain")],
)
def test_wrong_names_are_said(text, said):
    with pytest.raises(UserError, match=said):
        names.method_names(text)


# the plan


def test_a_plan_leaves_out_what_is_recorded(home, recorded):
    recorded("kd", 1)
    recorded("kd", 2, status="oom")
    (cell,) = cells(asked(home, "kd"))
    assert cell.seeds == (0,)
    done, failed = cell.skipped
    assert (done.seeds, done.why, done.failed) == ((1,), "recorded", False)
    assert failed.seeds == (2,)
    assert failed.failed
    assert "oom" in failed.why
    (again,) = cells(asked(home, "kd", retry=True))
    assert again.seeds == (0, 2)


def test_a_cell_without_its_cost_is_said_to_need_one_more_seed(home, recorded):
    recorded("kd", 0, overhead={"mode": "off"})
    (cell,) = cells(asked(home, "kd", seeds=(0,), overhead="quick"))
    assert cell.skipped[0].why == "recorded, its cost unknown: one more seed measures it"
    recorded("kd", 1)
    (cell,) = cells(asked(home, "kd", seeds=(0,), overhead="quick"))
    assert cell.skipped[0].why == "recorded"


def test_records_of_other_device_classes_are_not_this_sweeps(home, recorded):
    recorded("kd", 0, device_class="cuda:A/fp32/x1", overhead={"mode": "off"})
    (cell,) = cells(asked(home, "kd"))
    assert cell.seeds == (0, 1, 2)


def test_a_method_that_does_not_apply_leaves_one_record_that_says_so(home, recorded):
    (cell,) = cells(asked(home, "kd", "digits/angle"))
    assert cell.seeds == (0,)
    assert cell.skipped[0].seeds == (1, 2)
    assert "regression" in cell.skipped[0].why
    recorded("kd", 0, "digits/angle", status="not_applicable", error={"type": "NotApplicable", "message": "of no use"})
    (cell,) = cells(asked(home, "kd", "digits/angle"))
    assert not cell.seeds
    assert cell.skipped[0].why == "does not apply: of no use"


def test_a_method_with_a_teacher_needs_a_task_with_one():
    spec = registry.task(TASK)
    alone = spec.model_copy(update={"pair": spec.pair.model_copy(update={"teachers": {}})})
    assert inapplicable(registry.card("kd"), spec) is None
    assert inapplicable(registry.card("kd"), alone) == "it needs a teacher, the task has none"
    assert inapplicable(registry.card("plain"), alone) is None


def test_tasks_without_data_are_left_out(home):
    absent = next(name for name in registry.task_files() if name.startswith("steering/"))
    (cell,) = cells(asked(home, "plain", absent))
    assert not cell.seeds
    assert cell.skipped[0].why.startswith("no data: put it into")


def test_a_run_whose_record_was_removed_is_done_again(home, recorded):
    recorded("kd", 0)
    removed = recorded("kd", 1)
    (cell,) = cells(asked(home, "kd"))
    assert cell.seeds == (2,)
    (home.records / f"{removed}.json").unlink()
    (cell,) = cells(asked(home, "kd"))
    assert cell.seeds == (1, 2)


def test_an_override_makes_other_runs(home, recorded):
    recorded("kd", 0)
    (cell,) = cells(asked(home, "kd", overrides=("train.epochs=2",)))
    assert cell.seeds == (0, 1, 2)
    with pytest.raises(UserError, match=r"no key 'train\.epoch'"):
        cells(asked(home, "kd", overrides=("train.epoch=2",)))


def test_no_cost_of_other_values_answers_for_a_search_even_where_it_found_none_better(home):
    """What a cell's steps cost is looked up by its specification, which names the ruleset."""
    published = run_config("kd", TASK)
    tuned.keep(an_entry("kd", TASK, RATE_FOUND, (85.0, 80.0)), home)
    config = run_config("kd", TASK, tuned=tuned.find(published, "tuned-2", home))
    assert config.tuned.values == {}
    assert config.step_hash == config.spec_hash
    assert config.spec_hash != published.spec_hash
    known = Known(measured={published.spec_hash: {("full", "a" * 32)}})
    searched = asked(home, "kd", overhead="full", ruleset="tuned-2")
    (cell,) = plan(searched, known, ["kd"])
    assert cell.spec_hash == config.spec_hash
    assert not cell.measured
    known.measured[cell.spec_hash] = {("full", "b" * 32)}
    (cell,) = plan(searched, known, ["kd"])
    assert cell.measured  # by a seed of its own


def test_hours_come_from_the_cell_or_from_plain_and_the_ratio(home, recorded):
    stage = {"name": "distill", "ledger": "distill", "device_h": 9.0, "steps": 3_600_000, "basis": "measured"}
    recorded("kd", 0, stages=[stage])
    recorded("plain", 0, stages=[{**stage, "device_h": 3.0}], overhead={"mode": "off"})
    recorded("reviewkd", 0, "digits", ratio=4.0)
    known = Known.read(home, False, CPU.__eq__)
    measured = load(next(p for p in home.records.glob("*.json") if load(p).method_name == "kd")).measured
    assert known.hours_of("kd", TASK) == pytest.approx(measured.step_ms)  # steps x step time, not the clock's 9 h
    assert known.hours_of("plain", TASK) == pytest.approx(3.0)
    assert known.hours_of("reviewkd", TASK) == pytest.approx(3.0 * known.ratios["reviewkd"])
    assert known.ratios["reviewkd"] == pytest.approx(4.0, rel=0.02)
    assert known.hours_of("crd", TASK) is None
    several = Known(
        hours={("plain", TASK): 2.0, ("plain", "here"): 5.0, ("cgan_kd", TASK): 24.0}, ratios={"cgan_kd": 1.0}
    )
    assert several.hours_of("cgan_kd", "here") == 60.0  # all its stages, not the step of one
    assert several.guessed("cgan_kd", "here")
    assert not several.guessed("cgan_kd", TASK)
    assert Known.read(home, True, CPU.__eq__).hours_of("kd", TASK) is None  # a whole run tells nothing of a smoke run


def test_neighbours_in_a_wave_ask_for_different_tasks(home):
    found = cells(asked(home, "plain,kd", "digits,digits/few-shot", seeds=(0, 1)))
    (wave,) = waves(found, "off", 2, 1)
    order = [(run.seed, run.cell.method, run.cell.task) for run in wave.runs]
    assert order == [(s, m, t) for s in (0, 1) for m in ("plain", "kd") for t in ("digits", "digits/few-shot")]
    assert set(wave.overhead.values()) == {"off"}


def test_with_several_jobs_the_first_seed_measures_alone_and_last(home, recorded):
    found = cells(asked(home, "plain,kd", overhead="quick"))
    parallel, alone = waves(found, "quick", 2, 1)
    assert {run.seed for run in parallel.runs} == {1, 2}
    assert set(parallel.overhead.values()) == {"off"}
    assert parallel.jobs == 2
    assert [run.label for run in alone.runs] == [f"plain on {TASK}, seed 0", f"kd on {TASK}, seed 0"]
    assert set(alone.overhead.values()) == {"quick"}
    assert alone.jobs == 1
    recorded("kd", 0)  # measured in full: the other seeds copy it
    found = cells(asked(home, "kd", overhead="quick"))
    (wave,) = waves(found, "quick", 2, 1)
    assert set(wave.overhead.values()) == {"quick"}
    (one,) = waves(cells(asked(home, "plain", overhead="full")), "full", 1, 1)
    assert [run.seed for run in one.runs] == [0, 1, 2]
    assert waves([], "full", 2, 1) == []


# compute-matched plain


def test_matched_runs_wait_for_the_cost_of_their_method(home, recorded, monkeypatch, tmp_path):
    monkeypatch.setattr("kdbench.sweep.rounds.PUBLISHED", tmp_path / "nothing-published")
    given = sweep(asked(home, "kd,plain@kd", overhead="quick"))
    shown = printed(*report.dry_run(given))
    assert "needs the measured cost" not in shown
    assert "start when the cost" in shown
    assert "6 runs, 0 left out" in shown
    shown = printed(*report.dry_run(sweep(asked(home, "kd,plain@kd", "digits/angle", overhead="quick"))))
    assert "1 run, 5 left out" in shown  # kd does not apply, so its cost will never be known
    (cell,) = sweep(asked(home, "plain@kd")).matched()
    assert "has no result here" in cell.skipped[0].why
    recorded("kd", 0, "digits/angle", status="not_applicable", error={"type": "NotApplicable", "message": "of no use"})
    (cell,) = sweep(asked(home, "plain@kd", "digits/angle")).matched()
    assert cell.skipped[0].why == "kd does not apply"
    recorded("kd", 0, overhead={"mode": "off"})
    (cell,) = sweep(asked(home, "plain@kd")).matched()
    assert "needs the measured cost" in cell.skipped[0].why
    recorded("kd", 1)
    (cell,) = sweep(asked(home, "plain@kd")).matched()
    assert cell.seeds == (0, 1, 2)
    assert cell.order.match.method == "kd"
    assert cell.order.match.ratio > 0
    assert cell.spec_hash != run_config("plain", TASK).spec_hash
    (cell,) = sweep(asked(home, "plain@kd", overhead="full")).matched()
    assert not cell.measured
    recorded("plain", 0)  # whose steps a compute-matched run takes
    (cell,) = sweep(asked(home, "plain@kd", overhead="full")).matched()
    assert cell.measured
