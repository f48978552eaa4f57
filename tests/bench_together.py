"""Seeds that take turns in one process: ``pytest tests/bench_together.py -s -n0``.

The first test gives five seeds of kd to one process in turns, to one process one after the other, and to five
processes. The three ways take turns, each on a copy of one home in which the teacher is trained. What is
compared is the processor time of all processes, which a busy machine does not stretch as it does the clock. The second
test is for a GPU: how many steps a second so many seeds make together, with captured steps where the device has them.
"""

from __future__ import annotations

import copy
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

import pytest
import torch

from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.devices import backends
from kdbench.devices.machine import take_device
from kdbench.engine import teachers
from kdbench.engine.assemble import load_data, prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.trainer import Trainer
from kdbench.specs.config import run_config

TASK = "digits/few-shot"
SEEDS = 5
ROUNDS = int(os.environ.get("KDBENCH_BENCH_ROUNDS", "5"))
WAYS: dict[str, Sequence[Sequence[str]]] = {
    "in turns": [("--seeds", f"0-{SEEDS - 1}", "--seeds-together", str(SEEDS))],
    "one after the other": [("--seeds", f"0-{SEEDS - 1}")],
    "a process each": [("--seed", str(seed)) for seed in range(SEEDS)],
}
"""The commands of each way, which follow one another."""
STEPS, WARM = 200, 10


def evaluate(home: Path, words: Sequence[str]) -> None:
    """``kdbench evaluate``, to its end, on one thread."""
    command = ("-m", "kdbench", "evaluate", "-m", "kd", "-t", TASK, "--overhead", "off", "--device", "cpu")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command, "--out", str(home), *words], env=env, check=True, capture_output=True)


def took(home: Path, commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Processor time and the clock's, seconds."""

    def used() -> float:
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        return own.ru_utime + own.ru_stime

    begin, before = time.perf_counter(), used()
    for words in commands:
        evaluate(home, words)
    return used() - before, time.perf_counter() - begin


@pytest.mark.timeout(3600)
def test_five_seeds_in_three_ways(tmp_path):
    evaluate(tmp_path / "taught", ("--seed", "99"))
    for folder in ("records", "students", "logs", "index"):
        shutil.rmtree(tmp_path / "taught" / folder, ignore_errors=True)
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for place in range(len(WAYS)):
            way = list(WAYS)[(number + place) % len(WAYS)]
            home = tmp_path / f"{number}-{place}"
            shutil.copytree(tmp_path / "taught", home)
            seconds[way].append(took(home, WAYS[way]))
            assert len(list((home / "records").glob("*.json"))) == SEEDS
    print(f"\n{SEEDS} seeds of kd on {TASK}, {ROUNDS} rounds, medians\nway                  processor s  clock s")
    for way, found in seconds.items():
        processor, clock = (median(part) for part in zip(*found, strict=True))
        print(f"{way:20} {processor:11.1f} {clock:8.1f}")
    processor = {way: median(one for one, _ in found) for way, found in seconds.items()}
    assert processor["in turns"] < processor["a process each"]


def test_steps_a_second_of_seeds_together(tmp_path):
    """One row for each number of seeds: steps of all together by the clock, over those of one."""
    torch.use_deterministic_algorithms(False)
    device = take_device("auto")
    backend = backends.of(device)
    words = ("engine.fused=true", "engine.cuda_graphs=true") if backend.no_graphs() is None else ()
    config = run_config("kd", TASK, words)
    rows = load_data(config, None, Home(tmp_path / "data"), Progress.silent())
    untrained = {
        role: replace(teachers.untrained(config.task, role, rows, device), score=0.0)
        for role in config.task.pair.teachers
    }
    number, alone = count(), 0.0
    print(f"\n{backends.written(device)}, kd on {TASK}\nseeds  steps a second  over one")
    for seeds in (1, 2, 4, 8) if not backend.on_host else (1, 2):
        going = deque()
        for seed in range(seeds):
            place = RunPlace(device, Home(tmp_path), None, tmp_path / f"run-{next(number)}")
            own = {role: replace(t, net=copy.deepcopy(t.net)) for role, t in untrained.items()}
            prepared = prepare(config, seed, place, rows, own)
            going.append((backend.lane(device), Trainer(prepared.method, prepared.task).steps()))
        begin = 0.0
        for step in range((WARM + (STEPS if not backend.on_host else WARM)) * seeds):
            if step == WARM * seeds:
                backend.synchronize(device)
                begin = time.perf_counter()
            with going[0][0].turn():
                next(going[0][1])
            going.rotate(-1)
        backend.synchronize(device)
        rate = (step + 1 - WARM * seeds) / (time.perf_counter() - begin)
        alone = alone or rate
        print(f"{seeds:5} {rate:15.0f} {rate / alone:9.2f}")
        assert rate > alone / 2, "turns cost next to nothing of a step's time"
