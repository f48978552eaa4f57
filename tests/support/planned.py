"""Sweeps as they are asked for and planned, run by nobody."""

from __future__ import annotations

import io

from rich.console import Console

from kdbench.base.home import Home
from kdbench.sweep import devices as where
from kdbench.sweep import names
from kdbench.sweep.known import Known
from kdbench.sweep.plan import Asked, PlannedCell, plan
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Sweep

CPU = "cpu/fp32/x1"
TASK = "digits/few-shot"


def asked(home: Home, methods: str, tasks: str = TASK, **more) -> Asked:
    more.setdefault("seeds", (0, 1, 2))
    return Asked(tuple(names.method_names(methods)), tuple(names.task_names(tasks)), home, **more)


def cells(given: Asked) -> list[PlannedCell]:
    known = Known.read(given.home, given.smoke, CPU.__eq__)
    return plan(given, known, given.methods)


def sweep(given: Asked, jobs: int = 2, launcher: str = "joblib") -> Sweep:
    place = where.Where(("cpu",), CPU.__eq__, jobs, launcher=launcher)
    return Sweep(given, place, SweepProgress(None))


def printed(*things: object) -> str:
    screen = Console(file=io.StringIO(), width=250)
    for thing in things:
        screen.print(thing)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()
