"""A sweep of 12 runs under kill -9: at every kind of write, at random moments, and beside another sweep."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from sweeps import check_equal, ended, kill_family, results, sweep, tiny_pictures

from kdbench.base.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("kills")]
FAULTS = Path(__file__).parents[1] / "support" / "faults"
WORDS = (
    "-m", "plain,kd,cgan_kd", "-t", "digits/few-shot,mnist", "--seeds", "0-1", "--smoke", "--overhead", "off",
    "smoke.epochs=80",
)  # fmt: skip
KILLS = 26
PHASES = [  # in the order in which a sweep comes to them
    ("a job's order", "os.rename", r"/sweeps/.*/\.0\.order\.json"),
    ("the start of a run", "os.rename", r"/\.\d+\.state\.json"),
    ("a run's name", "os.rename", r"/runs/.*/\.run\.json"),
    ("a decoded column", "open", r"/data/.*\.making/train\."),
    ("the facts of decoded data", "os.rename", r"/data/.*\.making/\.facts"),
    ("the folder of decoded data", "os.rename", r"/data/[^/]*\.making$"),
    ("a teacher's checkpoint", "os.rename", r"/teachers/.*\.making/checkpoints/\."),
    ("a teacher's weights", "os.rename", r"/teachers/.*\.making/\.weights"),
    ("a teacher's folder", "os.rename", r"/teachers/[^/]*\.making$"),
    ("a checkpoint within a stage", "os.rename", r"/runs/.*/\.current\.pt"),
    ("a checkpoint after a stage", "os.rename", r"/runs/.*/\.stage-0\.pt"),
    ("a student's weights", "os.rename", r"/students/\."),
    ("a record", "os.rename", r"/records/\."),
    ("a record whose run still has its folder", "open", r"/records$"),
    ("a finished run's folder", "shutil.rmtree", r"/runs/[0-9a-f]{32}$"),
    ("the end of a job", "os.rename", r"/\.\d+\.end\.json"),
    ("an ingest", "open", r"/spool\.ndjson$"),
    ("between the stages of cgan_kd", "os.rename", r"/runs/.*/\.stage-1\.pt"),
    ("what it keeps for the task", "os.rename", r"/artefacts/[^/]*\.making$"),
    ("between its later stages", "os.rename", r"/runs/.*/\.stage-2\.pt"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same sweep when nothing happens; its data folder lies beside its home."""
    home = Home(tmp_path_factory.mktemp("undisturbed") / "home")
    tiny_pictures(data_of(home))
    code, _, err = ended(start(home, home))
    assert code == 0, err
    assert len(results(home)) == 12
    return home


def data_of(home: Home) -> Path:
    return home.root.parent / "pictures"


def start(home: Home, undisturbed: Home, fault: dict[str, Any] | None = None) -> subprocess.Popen[str]:
    env = {} if fault is None else {"PYTHONPATH": str(FAULTS), "KDBENCH_FAULT": json.dumps(fault)}
    return sweep(home, *WORDS, "--data", str(data_of(undisturbed)), **env, KDBENCH_CHECKPOINT_SECONDS="0.05")


def test_kill_9_at_many_moments_loses_and_changes_nothing(tmp_path: Path, undisturbed: Home) -> None:
    home, seed = Home(tmp_path / "home"), random.randrange(10**6)
    rng, told = random.Random(seed), []
    for number, (what, event, path) in enumerate(PHASES):
        mark = tmp_path / f"mark-{number}"
        process = start(home, undisturbed, {"do": "kill", "event": event, "path": path, "mark": str(mark)})
        process.communicate(timeout=300)
        assert mark.exists(), f"never reached: {what}"
        assert process.returncode == -9, what
        told.append(what)
    while len(told) < KILLS:
        process, began = start(home, undisturbed), time.time()
        while process.poll() is None and not any(
            path.stat().st_mtime > began for path in home.root.glob("sweeps/*/*.state.json")
        ):
            time.sleep(0.02)
        pause = rng.uniform(0, 0.3)
        time.sleep(pause)
        if process.poll() is not None:  # nothing was left to kill: once more from the beginning
            check_equal(home, undisturbed)
            home = Home(tmp_path / f"home-{len(told)}")
            continue
        kill_family(process)
        told.append(f"{pause:.2f} s after the start")
    code, _, err = ended(start(home, undisturbed))
    assert code == 0, f"{err}, killed at {told}, seed {seed}"
    check_equal(home, undisturbed)


def test_two_sweeps_in_one_folder_give_what_one_gives(tmp_path: Path, undisturbed: Home) -> None:
    home = Home(tmp_path / "home")
    both = [start(home, undisturbed) for _ in range(2)]
    assert [ended(process)[0] for process in both] == [0, 0]
    check_equal(home, undisturbed)
