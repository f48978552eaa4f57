"""Sweeps: what is shown while runs go on, and at the end."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

from planned import TASK, printed
from rich.console import Console

from kdbench.base.progress import Progress
from kdbench.sweep import job, report
from kdbench.sweep.plan import PlannedCell, Run
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Outcome
from kdbench.sweep.state import State


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
        end = {"seed": 0, "outcome": "recorded", "line": f"kd on {TASK}, seed 0: top1 90"}
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
