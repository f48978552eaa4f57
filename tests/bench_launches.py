"""Operators that a step launches on the device, for every method: ``pytest tests/bench_launches.py -s -n0``.

Counted on a CUDA device that is none (``fake_cuda``), on each method's tiny task; counts, no times. Beside a captured
step the host launches what hands row numbers and learning rates to the graph and takes the terms out of it, and where
the host has a part in a batch, what draws it; the first step of an epoch also the epoch's order and what follows the
epoch. A step without a graph launches everything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_cuda import CUDA, FakeCuda, Seen, fake_cuda
from fake_cuda.graphs import FakeGraphs
from tinies import captured, tiny_of
from waiting import EXCUSED, LOOKS

from kdbench.engine.graphs import WARM_STEPS
from kdbench.engine.stage import StageRun
from kdbench.specs.options import EngineOptions

GRAPHS = EngineOptions(fused=True, cuda_graphs=True)
STEPS = 3 * WARM_STEPS
BUDGET = 5
"""Launches a step outside of its graph that the engine aims at."""


@dataclass
class Counted:
    """Launches of a method's last stage: of an eager step, and of a replayed one outside of its graph, by operator.

    ``within``: the graph draws the batch.
    """

    eager: Counter[str]
    outside: Counter[str] | None
    within: bool = False


def counted(method: str, folder: Path) -> Counted:
    """What steps of a method launch; ``outside`` is None where none is replayed."""
    found = Counted(Counter(), None)
    with fake_cuda() as fake:
        prepared = tiny_of(method, GRAPHS).prepare(folder, device=CUDA)
        for stage in prepared.method.stages():
            prepared.method.to(prepared.task.device).train()
            run, found = StageRun(prepared.method, stage, prepared.task), Counted(Counter(), None)
            found.within = run._drawn_within
            for number in range(min(STEPS, run.total)):
                captures, replays = FakeGraphs.captures, FakeGraphs.replays
                seen = watched(fake, run)
                if number == 0:
                    found.eager = seen.launches
                if FakeGraphs.captures == captures and FakeGraphs.replays > replays:
                    if number % run.loader.steps:
                        found.outside = seen.launches
                    assert seen.where - EXCUSED.keys() == set(), "a launch that the host waits for"
    return found


def watched(fake: FakeCuda, run: StageRun) -> Seen:
    """One step."""
    with fake.watched() as seen:
        run.step()
    return seen


@pytest.mark.parametrize("method", [name for name in captured() if name not in LOOKS])
def test_launches_outside_the_graph(method, tmp_path, benchmark):
    if reason := tiny_of(method).config.task.of_kind.eager:
        pytest.skip(f"nothing is captured: {reason}")
    found = benchmark.pedantic(counted, args=(method, tmp_path), rounds=1)
    outside = None if found.outside is None else found.outside.total()
    benchmark.extra_info.update(eager=found.eager.total(), outside=outside, budget=BUDGET)
    told = "no step of it is replayed" if found.outside is None else f"{outside} outside the graph (aim {BUDGET})"
    if found.within and found.outside is not None:
        assert found.outside.total() <= BUDGET
    else:
        told += ", its batches drawn by the host" if found.outside is not None else ""
    print(f"\n{method}: {found.eager.total()} launches a step, {told}")
