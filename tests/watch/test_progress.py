"""What is shown of long work: on a terminal, in a pipe, line by line."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from watched import point

from kdbench.base import progress as base
from kdbench.base.progress import Progress, Runs, Work
from kdbench.watch import words
from kdbench.watch.lines import EVERY_S, Lines
from kdbench.watch.screen import Screen


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=made))
    return made


def test_a_pipe_gets_a_line_a_minute_and_none_before(clock: Clock) -> None:
    lines: list[str] = []
    progress = Progress([Lines(clock=clock, write=lines.append)])
    progress.runs.begin("kd on digits, seed 0", 3)
    reads = []
    with progress.stage("distill", 600, 0, epochs=30, epoch_steps=20) as work:
        work.read = lambda: reads.append(clock.now) or 0.4123
        work.score = ("top1", 83.1)
        for now in (1.0, EVERY_S - 0.1, EVERY_S, EVERY_S + 1, 2 * EVERY_S - 0.1, 2 * EVERY_S):
            clock.now = now
            progress.step(work)
    assert lines == [
        "run 1/3, kd on digits, seed 0: distill, epoch 1/30, loss 0.4123, top1 83.10, ETA 3:19:00, all 9:59:00",
        "run 1/3, kd on digits, seed 0: distill, epoch 1/30, loss 0.4123, top1 83.10, ETA 3:18:00, all 9:58:00",
    ]
    assert reads == [EVERY_S, 2 * EVERY_S]  # the host waits for the device only where a line is due


def test_short_work_says_nothing_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress([Lines()])
    with progress.bar("decoding", 3) as advance:
        advance()
    assert capfd.readouterr() == ("", "")


def test_time_left_of_all_runs_comes_from_those_before() -> None:
    runs = Runs()
    runs.begin("first", 4)
    runs.training(100.0)
    assert runs.left(30.0, 110.0) == (30.0, 30.0 + 3 * 40.0)  # its own stage is all that is known
    runs.training(160.0)
    runs.begin("second", 4)
    runs.training(1000.0)  # a teacher and a measurement lay between
    assert runs.left(10.0, 1020.0) == (40.0, 40.0 + 2 * 60.0)
    assert runs.left(50.0, 1020.0) == (50.0, 50.0 + 2 * 60.0)


def test_a_run_that_did_not_train_tells_nothing_of_the_others() -> None:
    runs = Runs()
    for label in ("answered by a record", "second"):
        runs.begin(label, 2)
    runs.training(0.0)
    assert runs.left(7.0, 5.0) == (12.0 - 5.0, 7.0)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_fits(width: int, clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    progress = Progress([Screen(console)])
    progress.runs.begin("kd on digits/few-shot, seed 2", 18)
    with progress.bar("loading", None), progress.stage("distill", 600, 0, epochs=30, epoch_steps=20) as work:
        clock.now = 40.0
        for _ in range(40):
            progress.step(work)
        progress.point(work, point())
        shown = io.StringIO()
        Console(file=shown, width=width, color_system=None).print(progress.views[0].drawn())
    lines = shown.getvalue().splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("run 1/18  kd on digits/few-shot, seed 2  ETA 0:09:20")
    assert all(part in lines[1] for part in ("distill", "epoch 3/30", "loss 0.5", "top1 83.10"))
    if width >= 80:
        assert "all 2:59:20" in lines[0]


@pytest.mark.parametrize("width", [60, 120])
def test_runs_that_take_turns_have_a_row_each(width: int, clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    progress = Progress([Screen(console)])
    progress.runs.begin("kd on digits/few-shot, 2 seeds", 1)
    with (
        progress.bar("loading", None),
        progress.labelled("seed 0").stage("distill", 600, 0, epochs=30, epoch_steps=20) as first,
        progress.labelled("seed 11").stage("warm-up", 1200, 0, epochs=None, epoch_steps=20) as second,
    ):
        clock.now = 40.0
        for work in (first, second):
            for _ in range(40):
                progress.step(work)
        progress.point(first, point())
        shown = io.StringIO()
        Console(file=shown, width=width, color_system=None).print(progress.views[0].drawn())
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split("  ")[0] for line in lines[:2]] == ["kd on digits/few-shot, 2 seeds", "seed 0 distill"]
    assert "seed 11 warm-up" in shown.getvalue()
    assert shown.getvalue().count("ETA") == 2
    if width == 120:
        assert len(lines) == 3
        assert all(part in lines[1] for part in ("epoch 3/30", "loss 0.5", "top1 83.10", "ETA 0:09:20"))
        assert all(part in lines[2] for part in ("40/1,200", "ETA 0:19:20"))


def test_an_epoch_in_words_has_each_term() -> None:
    work = Work("distill", 600, 60, Runs(), True, 30, 20)
    said = words.epoch(work, point())
    assert said == "distill, epoch 3/30, step 60/600, loss 0.5 (ce 0.3, kd 0.2), top1 83.10, lr 0.1"
    assert words.epoch(work, point(epoch=None, scores={})).startswith("distill, step 60/600, loss 0.5 (")


AT_ONCE = """
import sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.stderr.write("TORCH")
            sys.stderr.flush()
            sys.exit(7)
sys.meta_path.insert(0, Slow())
sys.argv[1:] = ["evaluate", "-m", "kd", "-t", "digits/few-shot", "--smoke", "--device", "cpu"]
from kdbench.cli import main
main()
"""


def test_a_terminal_shows_something_before_torch_is_loaded(tmp_path) -> None:
    leader, follower = pty.openpty()
    env = os.environ | {"KDBENCH_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE], stdin=follower, stdout=follower, stderr=follower, env=env
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 4096):
            shown += part
    except OSError:  # its other end is closed
        pass
    assert process.wait(60) == 7, shown
    before, torch, _ = shown.partition(b"TORCH")
    assert torch
    assert b"loading" in before
