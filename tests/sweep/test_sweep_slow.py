"""Whole sweeps in processes of their own: killed at random, timed out, on a Slurm of a few lines."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeps import below, ended, records, sweep

from kdbench.base.home import Home
from kdbench.index.store import Store
from kdbench.sweep.order import JobOrder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SMALL = ("-m", "plain,kd,reviewkd", "-t", "digits,digits/few-shot", "--seeds", "0-3", "--smoke", "--overhead", "off")
JOBS = 24


def kill_one(process: subprocess.Popen[str], kind: str, rng: random.Random, within_s: float = 120.0) -> None:
    """Kills a random process of a kind below the sweep's, as soon as there is one."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        found = [pid for pid, line in below(process.pid) if kind in line]
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
            return
        time.sleep(0.1)
    pytest.fail(f"no process {kind!r} below the sweep's")


def wait_until(done: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def check_each_job_done_once(home: Home) -> None:
    found = records(home)
    assert Counter((r.method_name, r.task.name, r.seed, r.status) for r in found) == {
        (method, task, seed, "ok"): 1
        for method in ("plain", "kd", "reviewkd")
        for task in ("digits", "digits/few-shot")
        for seed in range(4)
    }
    with Store(home.index, read_only=True) as store:
        assert {row["run_id"] for row in store.runs()} == {record.run_id for record in found}
    assert len([p for p in home.teachers.iterdir() if p.is_dir()]) == 2  # nobody trained a teacher twice
    assert [p for p in home.runs.iterdir() if p.is_dir()] == []


WORKERS = {"joblib": "loky", "submitit_local": "submitit.core._submit"}


@pytest.mark.parametrize(("launcher", "together"), [*((name, 1) for name in WORKERS), ("joblib", 2)])
def test_kill_9_of_workers_and_of_the_parent_loses_and_doubles_nothing(tmp_path, launcher, together):
    """24 runs; a launcher's worker, a process that trains and the parent are killed at random moments, then again."""
    home, rng = Home(tmp_path), random.Random()
    words = (*SMALL, "--launcher", launcher, "--jobs", "2", "--seeds-together", str(together))

    def random_moment(first: int, last: int) -> None:
        """After so many jobs: a moment by the clock would come too late on a fast machine."""
        wanted = rng.randint(first, last)
        wait_until(lambda: len(list(home.records.glob("*.json"))) >= wanted, within_s=300)
        time.sleep(rng.uniform(0, 0.5))

    first = sweep(home, *words)
    random_moment(0, 4)
    kill_one(first, WORKERS[launcher], rng)
    random_moment(5, 9)
    kill_one(first, "kdbench.sweep.process", rng)
    random_moment(10, 14)
    family = [pid for pid, _ in below(first.pid)]
    first.kill()
    first.wait()  # not for its pipes: workers that live on hold them
    if launcher == "joblib":  # submitit's jobs are made to outlive their parent
        wait_until(lambda: not any((Path("/proc") / str(pid) / "exe").exists() for pid in family))
    done = len(records(home))
    assert done < JOBS
    second = sweep(home, *words)
    random_moment(done, max(done, JOBS - 4))
    kill_one(second, WORKERS[launcher], rng)
    code, _, err = ended(second)
    assert code == 0, err
    check_each_job_done_once(home)
    assert "24 left out" in ended(sweep(home, *words, "--dry-run"))[1]


def test_two_sweeps_in_one_folder_do_each_job_once(tmp_path):
    home = Home(tmp_path)
    words = (*SMALL, "--launcher", "joblib", "--jobs", "2")
    both = [sweep(home, *words) for _ in range(2)]
    assert [ended(process)[0] for process in both] == [0, 0]
    check_each_job_done_once(home)


def test_a_run_that_takes_too_long_is_stopped_and_recorded(tmp_path):
    home = Home(tmp_path)
    words = ("-m", "kd", "-t", "digits", "--seeds", "0", "--overhead", "off")
    code, out, err = ended(sweep(home, *words, "--timeout", "1.5"))
    assert code == 1
    assert "1 timeout" in out
    (record,) = records(home)
    assert record.status == "timeout"
    assert record.error.message == "stopped after 1.5 s, the sweep's limit for a run"
    code, out, err = ended(sweep(home, *words))  # has a record: left alone, and still not fine
    assert code == 1
    assert "--retry-failed" in out
    assert len(records(home)) == 1
    code, out, err = ended(sweep(home, *words, "--retry-failed"))
    assert code == 0, err
    assert sorted(r.status for r in records(home)) == ["ok", "timeout"]


def test_a_run_that_takes_its_process_down_twice_is_recorded_and_the_sweep_goes_on(tmp_path):
    home, rng = Home(tmp_path), random.Random()
    process = sweep(home, "-m", "plain,kd", "-t", "digits", "--seeds", "0", "--overhead", "off")
    killed: set[Path] = set()
    while len(killed) < 2 and process.poll() is None:
        for state in home.root.glob("sweeps/*/*.state.json"):
            order = JobOrder.read(Path(str(state).replace(".state.", ".order.")).read_text())
            if order.run.config.method == "plain" and state not in killed:
                killed.add(state)
                kill_one(process, "kdbench.sweep.process", rng)
        time.sleep(0.02)
    code, _, err = ended(process)
    assert code == 1, err
    found = {record.method_name: record for record in records(home)}
    assert {name: record.status for name, record in found.items()} == {"plain": "failed", "kd": "ok"}
    assert "killed by signal 9 (SIGKILL), twice" in found["plain"].error.message


def test_a_failure_is_recorded_and_the_others_run(tmp_path):
    home = Home(tmp_path)
    words = ("-m", "plain,kd", "-t", "digits/few-shot", "--seeds", "0-1", "--overhead", "off")
    code, out, _ = ended(sweep(home, *words, "train.optimizer.lr=1e30", "--smoke"))
    assert code == 1
    assert "4 diverged" in out
    assert len(records(home)) == 4


SLURM = """#!{python}
import os, pathlib, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

here, words = pathlib.Path(__file__).parent, sys.argv[1:]
tool = pathlib.Path(sys.argv[0]).name

def one(script, name, number, task):
    part = {{"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}} if task is not None else {{}}
    env = os.environ | part | {{"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}}
    code = subprocess.call(["bash", script], env=env)
    (here / f"{{name}}.state").write_text("COMPLETED" if code == 0 else "FAILED")

if tool == "sbatch" and words[0] != "--serve":
    number = str(1000 + len(list(here.glob("*.sh"))))
    kept = here / f"{{number}}.sh"
    kept.write_text(pathlib.Path(words[0]).read_text())
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen([sys.argv[0], "--serve", str(kept), number], start_new_session=True, **quiet)
    print("Submitted batch job", number)
elif tool == "sbatch":
    script, number = words[1:]
    array = [line for line in open(script) if line.startswith("#SBATCH --array=")]
    if not array:
        one(script, number, number, None)
    else:
        last, _, at_once = array[0].partition("=")[2].strip().partition("-")[2].partition("%")
        with ThreadPoolExecutor(int(at_once)) as pool:
            for task in range(int(last) + 1):
                pool.submit(one, script, f"{{number}}_{{task}}", number, task)
elif tool == "srun":
    sys.exit(subprocess.call(words[words.index("--error") + 2:]))
elif tool == "sacct":
    print("JobID|State|NodeList")
    for path in here.glob("*.state"):
        print(path.stem, path.read_text(), "here", sep="|")
"""


def test_slurm(tmp_path):
    """The whole way through sbatch and srun, which here are a script that runs an array's jobs on this machine."""
    home, tools = Home(tmp_path / "home"), tmp_path / "bin"
    tools.mkdir()
    for tool in ("sbatch", "srun", "sacct"):
        (tools / tool).write_text(SLURM.format(python=sys.executable))
        (tools / tool).chmod(0o755)
    words = ("-m", "plain,kd", "-t", "digits/few-shot", "--seeds", "0-1", "--smoke", "--overhead", "off")
    more = ("--launcher", "submitit_slurm", "--jobs", "2", "--launcher-arg", "partition=gpu")
    code, _, err = ended(sweep(home, *words, *more, PATH=f"{tools}:{os.environ['PATH']}"))
    assert code == 0, err
    assert {(r.method_name, r.seed, r.status) for r in records(home)} == {
        (method, seed, "ok") for method in ("plain", "kd") for seed in (0, 1)
    }
    (script,) = tools.glob("*.sh")
    assert {"#SBATCH --array=0-3%2", "#SBATCH --partition=gpu"} <= set(script.read_text().splitlines())


def test_ray(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    home = Home(tmp_path)
    code, _, err = ended(sweep(home, *SMALL, "--launcher", "ray", "--jobs", "2"))
    assert code == 0, err
    check_each_job_done_once(home)
