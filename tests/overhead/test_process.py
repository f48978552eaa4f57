"""The process that measures ends with the one that asked, and nothing of a killed measurement stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from kdbench.base.home import Home
from kdbench.base.leftovers import clear_scratch, scratch

MODULE = "kdbench.overhead.process"


def test_a_worker_whose_parent_is_gone_ends_and_clears_what_it_left(tmp_path):
    home = Home(tmp_path)
    left = home.runs / "overhead-of-the-dead"
    left.mkdir(parents=True)
    (left / "request.json").write_text("{}")
    command = [sys.executable, "-P", "-m", MODULE, "0", str(home.root), str(left / "request.json"), str(left / "a")]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    assert not left.exists()


def test_scratch_lives_as_long_as_its_process(tmp_path):
    home = Home(tmp_path)
    left = home.runs / "overhead-left"
    left.mkdir(parents=True)
    run = home.runs / ("0" * 32)
    run.mkdir()
    with scratch(home) as own:
        assert own.is_dir()
        assert not left.exists()
        clear_scratch(home)
        assert own.is_dir(), "a measurement under way"
    assert not own.exists()
    assert run.is_dir(), "a run that can go on"


def test_scratch_of_another_process_stays(tmp_path):
    home = Home(tmp_path)
    other = home.runs / "overhead-other"
    other.mkdir(parents=True)
    with FileLock(other / ".lock"):
        clear_scratch(home)
        assert other.is_dir()
    clear_scratch(home)
    assert not other.exists()


def workers(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode()
            if folder.name.isdigit() and MODULE in words and os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("command", ["evaluate", "overhead"])
def test_a_command_killed_while_it_measures_leaves_no_worker(number, command, tmp_path):
    words = [sys.executable, "-m", "kdbench", command, "-m", "plain", "-t", "digits/few-shot", "--out", str(tmp_path)]
    words += ["--smoke", "--seed", "0"] if command == "evaluate" else []
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not workers(process.pid):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(120)  # it writes what it has, on a machine that may be busy
    deadline = time.monotonic() + 10
    while workers(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers(process.pid) == []
    assert not list(Home(tmp_path).runs.glob("overhead-*"))
