"""Sweeps: names, plans, options of launchers, what is shown; whole sweeps are in sweep/test_sweep_slow.py."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from entries import RATE_FOUND, an_entry
from rich.console import Console

from kdbench import cli
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.records.files import load
from kdbench.specs import registry, tuned
from kdbench.specs.config import run_config
from kdbench.sweep import devices as where
from kdbench.sweep import job, launch, names, report
from kdbench.sweep.known import Known
from kdbench.sweep.plan import Asked, PlannedCell, Run, inapplicable, plan, waves
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Outcome, Sweep
from kdbench.sweep.state import State

CPU = "cpu/fp32/x1"
TASK = "digits/few-shot"
SLURM = ("partition=gpu", "gpus_per_node=1", "cpus_per_task=8", "account=kd")


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


def asked(home: Home, methods: str, tasks: str = TASK, **more) -> Asked:
    more.setdefault("seeds", (0, 1, 2))
    return Asked(tuple(names.method_names(methods)), tuple(names.task_names(tasks)), home, **more)


def cells(given: Asked) -> list[PlannedCell]:
    known = Known.read(given.home, given.smoke, CPU.__eq__)
    return plan(given, known, given.methods)


def sweep(given: Asked, jobs: int = 2, launcher: str = "joblib") -> Sweep:
    place = where.Where(("cpu",), CPU.__eq__, jobs)
    return Sweep(given, place, launcher, [], None, SweepProgress(None))


def printed(*things: object) -> str:
    screen = Console(file=io.StringIO(), width=250)
    for thing in things:
        screen.print(thing)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


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


# the command line


@pytest.fixture
def command(monkeypatch, capsys, home):
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdbench", "sweep", "--out", str(home.root), "--device", "cpu", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def test_a_dry_run_says_what_runs_and_touches_nothing(command, home, recorded):
    words = ("-m", "kd,plain", "-t", "digits/few-shot,digits/angle", "--seeds", "0-3", "--dry-run")
    code, out, _ = command(*words)
    assert code == 0
    assert "hours unknown" in out
    assert not home.root.exists()
    recorded("kd", 2)
    code, out, _ = command(*words, "--launcher", "joblib", "--jobs", "2")
    assert "0-1,3" in out
    assert "2: recorded" in out
    assert "12 runs, 4 left out, 2 at once with joblib" in out  # 3 kd, 1 says that kd needs classes, 8 plain
    assert "of unknown length" in out
    assert "come on top" in out
    assert not (home.root / "sweeps").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "kdd"), "did you mean 'kd'"),
        (("-t", "digit"), "did you mean 'digits'"),
        (("--launcher", "jobliv"), "did you mean 'joblib'"),
        (("--jobs", "2"), "--launcher joblib does several"),
        (("--launcher", "joblib", "--jobs", "2", "--jobs-per-device", "2"), "not both"),
        (("--launcher", "submitit_slurm", "--jobs-per-device", "2"), "use --jobs"),
        (("--launcher", "submitit_slurm", "--device", "cuda:1"), "devices of its own"),
        (("--launcher", "submitit_slurm", "--launcher-arg", "partitio=gpu"), "did you mean 'partition'"),
        (("--launcher", "submitit_slurm", "--launcher-arg", "cpus_per_task=many"), "cpus_per_task"),
        (("--launcher", "submitit_slurm", "--launcher-arg", "partition"), "KEY=VALUE"),
        (("--launcher", "joblib", "--launcher-arg", "n_jobs=3"), "--jobs sets that"),
        (("--seeds", "3-1"), "backwards"),
        (("--timeout", "0"), "--timeout"),
    ],
)
def test_bad_input_is_one_line(command, words, said):
    base = {"-m": "kd", "-t": "digits", "--dry-run": None}
    rest = [word for key, value in base.items() if key not in words for word in (key, value) if word]
    code, _, err = command(*rest, *words)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("launcher", "package"),
    [("joblib", "hydra-joblib-launcher"), ("submitit_slurm", "hydra-submitit-launcher"), ("ray", "hydra-ray-launcher")],
)
def test_a_launcher_that_is_not_installed_is_one_line(command, monkeypatch, launcher, package):
    monkeypatch.setattr(launch, "_installed", lambda module: False)
    code, _, err = command("-m", "kd", "-t", "digits", "--launcher", launcher)
    assert code == 2
    assert package in err
    assert "pip install" in err
    assert len(err.strip().splitlines()) == 1


# launchers


def test_options_of_launchers():
    assert launch.options("joblib", 3, None, []) == ["batch_size=1", "n_jobs=3"]
    assert launch.options("basic", 1, 10.0, []) == []
    assert launch.options("submitit_slurm", 8, 3601, SLURM[:1]) == [
        "array_parallelism=8",
        "timeout_min=71",
        "partition=gpu",
    ]
    launch.check("submitit_slurm", [*SLURM, "additional_parameters.nice=10", "setup=[module load cuda]"])
    for name in ("basic", "joblib", "submitit_local", "submitit_slurm"):
        launch.check(name, launch.options(name, 2, 60.0, []))


def test_a_folder_with_any_name_reaches_the_jobs(tmp_path, monkeypatch):
    folder = tmp_path / "a 'quoted', $odd=\\ name"
    folder.mkdir()
    seen = []
    monkeypatch.setattr(launch, "job", lambda config: seen.append((Path(config.folder), config.job)))
    launch.launch("basic", [], folder, [4, 5])
    assert seen == [(folder, 4), (folder, 5)]
    assert {path.name for path in (folder / "jobs").iterdir()} == {"4", "5"}


SBATCH = """#!{python}
import pathlib, sys
pathlib.Path({kept!r}).write_text(pathlib.Path(sys.argv[1]).read_text())
sys.exit("sbatch: error: no cluster here")
"""


def test_the_sbatch_script(tmp_path, monkeypatch):
    """What Slurm would be given, rendered without Slurm."""
    tools, kept = tmp_path / "bin", tmp_path / "kept.sh"
    tools.mkdir()
    for name in ("sbatch", "srun"):
        (tools / name).write_text(SBATCH.format(python=sys.executable, kept=str(kept)))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    chosen = launch.options("submitit_slurm", 4, 3600, SLURM)
    with pytest.raises(launch.LaunchFailed):
        launch.launch("submitit_slurm", chosen, tmp_path / "sweep", list(range(24)))
    script = kept.read_text().splitlines()
    wanted = {
        "array=0-23%4", "partition=gpu", "gpus-per-node=1", "cpus-per-task=8", "account=kd", "time=70", "nodes=1",
        "job-name=kdbench",
    }  # fmt: skip
    assert {f"#SBATCH --{line}" for line in wanted} <= set(script)
    (line,) = [line for line in script if line.startswith("srun ")]
    assert "submitit.core._submit" in line
    assert str(tmp_path / "sweep") in line


def test_a_launcher_that_cannot_start_is_said_once(home, monkeypatch):
    def broken(*_: object) -> None:
        raise launch.LaunchFailed("RuntimeError: no srun here")

    monkeypatch.setattr(launch, "launch", broken)
    with pytest.raises(UserError, match="started no run: RuntimeError: no srun"):
        sweep(asked(home, "plain"), launcher="submitit_slurm").run()


# what is shown


def test_the_table_shows_what_runs_and_the_pipe_gets_lines(tmp_path, capsys):
    runs = [Run(PlannedCell("kd", TASK), seed) for seed in (0, 1)]
    tell(job.state_file(tmp_path, 5))
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    progress = SweepProgress(screen)
    progress.expect(2)
    shown = printed(progress._table(tmp_path, dict(zip((5, 6), runs, strict=True))))
    assert "0/2 runs done, 1 running" in shown
    assert "cuda:1" not in shown  # the only one
    for part in ("kd", TASK, "distill", "3/30", "0.5", "83.10", "0:01:"):
        assert part in shown
    assert "…" not in shown
    with SweepProgress(Console(file=io.StringIO())).following(tmp_path, dict(zip((5, 6), runs, strict=True))):
        end = {"outcome": "recorded", "line": f"kd on {TASK}, seed 0: top1 90"}
        job.end_file(tmp_path, 5).write_text(json.dumps(end))
    err = capsys.readouterr().err
    assert err == f"kd on {TASK}, seed 0: top1 90\n"


def tell(path: Path) -> None:
    """A run's state in the middle of its training."""
    state = State(path)
    state.begin("0", "cuda:1")
    progress = Progress([state])
    with progress.stage("distill", 600, 0, epochs=30, epoch_steps=20) as work:
        work.done, work.began, work.score, work.read = 48, work.began - 6, ("top1", 83.1), lambda: 0.5
        progress.step(work)


def test_a_sweep_in_a_pipe_gets_a_line_at_the_interval(tmp_path, capsys):
    (run,) = [Run(PlannedCell("kd", TASK), 0)]
    tell(job.state_file(tmp_path, 5))
    now = [0.0]

    def clock() -> float:
        now[0] += 25.0  # each look is so much later
        return now[0]

    progress = SweepProgress(Console(file=io.StringIO()), every=60.0, clock=clock)
    progress.expect(3)
    with progress.following(tmp_path, {5: run}):
        while now[0] < 175.0:
            time.sleep(0.05)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + (now[0] >= 200.0)
    assert re.fullmatch(
        rf"0/3 runs done, 1 running, 0:00:\d\d, ETA -:--:--; kd on {TASK}, seed 0: "
        r"distill, 3/30, loss 0.5, top1 83.10, ETA 0:01:\d\d",
        lines[0],
    )


def test_seeds_are_shown_as_people_type_them():
    assert report.ranges((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert report.ranges(()) == ""


def test_the_end_names_what_failed(home):
    outcome = Outcome(refused={"kd on digits, seed 0": "no room"}, left=["kd on digits, seed 1"], logs=home.root)
    outcome.statuses.update(ok=3, timeout=1)
    said = "\n".join(report.ended(outcome, home))
    assert "4 runs: 3 ok, 1 timeout" in said
    assert "seed 0 has no record: no room" in said
    assert "the same command tries again" in said
