"""Whole evaluations under torchrun, and several of them at once: one record, one teacher, failures, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records import make_record

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.engine.assemble import require_shared
from kdbench.parallel.torchrun import launch
from kdbench.records.files import parse
from kdbench.runs.verify import replay
from kdbench.specs import registry
from kdbench.specs.config import run_config

EVALUATE = ["evaluate", "--task", "digits/few-shot", "--smoke", "--seed", "0", "--overhead", "off"]
LIMIT_S = 150

RUNNER = """
import json, os, sys, time
from pathlib import Path
from kdbench.engine.stage import StageRun
wish = json.loads(sys.argv.pop(1))
rank = int(os.environ["RANK"])
with (Path(wish["notes"]) / f"{rank}.pid").open("w") as file:
    file.write(str(os.getpid()))
step = StageRun.step
def changed(self):
    time.sleep(wish.get("sleep", 0))
    if rank == wish.get("breaks") and self.step_number == 1:
        raise ValueError("this process broke")
    return step(self)
StageRun.step = changed
from kdbench.cli import main
main()
"""


def torchrun(home: Path, *words: str, runner: list[str] | None = None, **environment: str) -> subprocess.Popen[str]:
    """Two processes of a ``kdbench`` command, on any free port."""
    program = runner or ["-m", "kdbench"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "KDBENCH_HOME": str(home), **environment}
    return subprocess.Popen(command, env=settings, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and the lines of kdbench on standard error (torchrun adds its own)."""
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, "\n".join(line for line in err.splitlines() if "kdbench" in line)


def records(home: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((home / "records").glob("*.json"))]


@pytest.fixture
def runner(tmp_path):
    """A program for torchrun: kdbench, changed as a wish says."""
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    return lambda **wish: [str(script), json.dumps({"notes": str(tmp_path), **wish})]


@pytest.mark.slow
def test_torchrun_ends_in_one_record_of_two_processes_and_repeats_nothing(tmp_path):
    for _ in range(2):
        code, out, err = ended(torchrun(tmp_path, *EVALUATE, "--method", "crd"))
        assert code == 0, err
        assert out.count("1 records in") == 1, "the first process alone prints"
        (record,) = records(tmp_path)
    assert record["status"] == "ok"
    assert record["device_class"] == "cpu/fp32/x2"
    assert record["provenance"]["command"].startswith("torchrun --nproc-per-node 2 -m kdbench evaluate")
    assert len([folder for folder in (tmp_path / "teachers").iterdir() if folder.is_dir()]) == 1
    assert len(list((tmp_path / "students").iterdir())) == 1


@pytest.mark.slow
def test_a_method_that_cannot_be_shared_is_refused_before_any_work(tmp_path):
    code, _, err = ended(torchrun(tmp_path, *EVALUATE, "--method", "cgan_kd"))
    assert code != 0
    assert err.count("cgan_kd runs in one process: the stages of its generator") == 1
    assert not (tmp_path / "teachers").exists()
    assert not (tmp_path / "records").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_on_one_process_ends_all_with_a_failed_record(tmp_path, runner, rank):
    home = tmp_path / "home"
    begin = time.monotonic()
    code, _, _ = ended(torchrun(home, *EVALUATE, "--method", "plain", runner=runner(breaks=rank)))
    assert time.monotonic() - begin < 100
    assert code != 0
    (record,) = records(home)
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ValueError"
    assert record["error"]["message"].startswith(("process 1: " if rank else "") + "this process broke (")


@pytest.mark.slow
def test_a_run_whose_processes_are_all_killed_goes_on_to_the_same_bits(tmp_path, runner):
    words = [*EVALUATE, "--method", "kd", "train.epochs=6"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, _, err = ended(torchrun(whole, *words))
    assert code == 0, err
    every_step = {"KDBENCH_CHECKPOINT_SECONDS": "0"}
    process = torchrun(killed, *words, runner=runner(sleep=0.3), **every_step)
    begin = time.monotonic()
    while not list(killed.glob("runs/*/current.pt")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() - begin < LIMIT_S
        time.sleep(0.05)
    process.kill()
    for pid in tmp_path.glob("*.pid"):
        os.kill(int(pid.read_text()), signal.SIGKILL)
    process.communicate()
    assert not (killed / "records").exists()
    code, _, err = ended(torchrun(killed, *words))
    assert code == 0, err
    (a,), (b,) = records(whole), records(killed)
    assert a["deploy"]["export_sha256"] == b["deploy"]["export_sha256"]
    assert a["digest"] == b["digest"]


COUNTED = """
import os, sys
from pathlib import Path
from kdbench.engine import teachers
build_once = teachers.build_once
log = Path(sys.argv.pop(1))
def counted(folder, check, build, announce):
    def noted(path):
        with log.open("a") as file:
            file.write("x")
        build(path)
    return build_once(folder, check, noted, announce)
teachers.build_once = counted
from kdbench.cli import main
main()
"""


@pytest.mark.slow
def test_four_evaluations_that_lack_one_teacher_train_it_once(tmp_path):
    log, home = tmp_path / "built", tmp_path / "home"
    command = [sys.executable, "-c", COUNTED, str(log), "evaluate", "--task", "digits/few-shot", "--method", "kd"]
    command += ["train.epochs=1", "--overhead", "off", "--out", str(home), "--seed"]
    asked = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(4)]
    answers = [process.communicate(timeout=LIMIT_S) for process in asked]
    assert [process.returncode for process in asked] == [0] * 4, answers
    assert log.read_text() == "x"
    teachers = {record["models"]["teachers"][0]["weights_sha256"] for record in records(home)}
    assert len(records(home)) == 4
    assert len(teachers) == 1


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    assert launch() is None, "a cluster's own variables start no group"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert launch().size == 2


def test_other_verbs_refuse_torchrun(monkeypatch, capsys):
    from kdbench.cli import main

    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(sys, "argv", ["kdbench", "list", "methods"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "kdbench: torchrun shares the work of `kdbench evaluate` alone; start `kdbench list` without it\n"
    )


@pytest.mark.parametrize("name", ["cgan_kd", "cgan_kd+reviewkd"])
def test_a_method_says_why_it_cannot_be_shared(name):
    assert name in registry.methods()
    config = run_config(name, "digits/angle" if name == "cgan_kd" else "digits/few-shot", [])
    require_shared(config, 1)
    with pytest.raises(UserError, match=r"runs in one process: .*; start it without torchrun"):
        require_shared(config, 2)


def test_a_record_of_several_processes_is_not_replayed_by_one(tmp_path):
    record = parse(make_record(device_class="cpu/fp32/x2"))
    with pytest.raises(UserError, match="is of 2 processes"):
        replay(record, Home(tmp_path), None, Progress.silent())
