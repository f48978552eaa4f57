"""Sweeps: the command line and launchers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from planned import asked, sweep

from kdbench import cli
from kdbench.base.errors import UserError
from kdbench.sweep import launch

SLURM = ("partition=gpu", "gpus_per_node=1", "cpus_per_task=8", "account=kd")


# the command line


@pytest.fixture
def command(monkeypatch, capsys, home):
    def call(*words: str) -> tuple[int, str, str]:
        device = () if "--device" in words else ("--device", "cpu")
        monkeypatch.setattr(sys, "argv", ["kdbench", "sweep", "--out", str(home.root), *device, *words])
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


def test_a_dry_run_says_how_many_seeds_take_turns(command):
    words = ("-m", "plain", "-t", "digits", "--seeds", "0-3", "--dry-run", "--seeds-together", "2")
    assert "4 runs, 0 left out, 1 x 2 seeds of a cell at once with basic" in command(*words)[1]


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
        (("--seeds-together", "0"), "--seeds-together"),
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
