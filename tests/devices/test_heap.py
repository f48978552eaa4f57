"""What a step frees stays with the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_device import Abacus

from kdbench.base.home import Home
from kdbench.devices import heap
from kdbench.devices.backends import standing_in
from kdbench.devices.backends.cpu import Cpu
from kdbench.devices.base import Backend
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.specs.config import run_config

FAULTS = """
import resource
import torch
from kdbench.devices import heap

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

MAP = 64 * 2**20
faults(2 * MAP)
given_back = faults(MAP)
print(heap.keep_freed(), given_back, faults(2 * MAP), faults(MAP))
"""
"""Pages that the system brings for one map, used and freed, of a size that glibc would give back whenever it is freed.

In a process of its own: in one that did other work before, the hole may be taken in parts.
"""


def test_a_map_takes_the_place_of_a_freed_one() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120)
    kept, *counts = done.stdout.split()
    if kept == "False":
        pytest.skip("this C library has no such settings")
    given_back, _, kept_faults = map(int, counts)
    assert 10 * kept_faults < given_back


@pytest.mark.parametrize(("backend", "asked"), [(Cpu(), 1), (Abacus(), 0)])
def test_runs_on_a_cpu_ask_for_it(
    backend: Backend, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(heap, "keep_freed", lambda: calls.append(None))
    place = RunPlace(torch.device("cpu"), Home(tmp_path), None, tmp_path / "run")
    with standing_in(backend):
        prepare(run_config("plain", "digits/few-shot", smoke=True), 0, place)
    assert len(calls) == asked
