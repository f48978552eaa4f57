"""What a step frees stays with the process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from kdbench.config import run_config
from kdbench.engine import heap
from kdbench.engine.prepare import Place, prepare
from kdbench.home import Home

MAP = 64 * 2**20
"""Bytes of a map that glibc would give back whenever it is freed."""
PAGE = resource.getpagesize()


def faults(size: int) -> int:
    """Pages that the system brings for one map, which is used and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_map_takes_the_place_of_a_freed_one() -> None:
    if not heap.keep_freed():
        pytest.skip("this C library has no such settings")
    faults(2 * MAP)
    assert faults(MAP) < MAP / PAGE / 100


@pytest.mark.parametrize(("device", "asked"), [("cpu", 1), ("meta", 0)])
def test_runs_on_a_cpu_ask_for_it(device: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(heap, "keep_freed", lambda: calls.append(None))
    place = Place(torch.device(device), Home(tmp_path), None, tmp_path / "run")
    prepare(run_config("plain", "digits/few-shot", smoke=True), 0, place)
    assert len(calls) == asked
