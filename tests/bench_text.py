"""The engine's plain training of translation beside a bare loop: equal nets, sentences and order, one thread.

``pytest tests/bench_text.py -n0 -s``. Rounds of steps take turns in one process; processor time is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from statistics import quantiles

import pytest
import torch
import torch.nn.functional as F

from kdbench.base.home import Home
from kdbench.contract import Batch
from kdbench.contract.sentences import BOS, EOS, PAD, PREFIX
from kdbench.data import load
from kdbench.data.decode.place import Place
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.specs.config import run_config

pytest.importorskip("tokenizers", reason="text is an extra: pip install 'kdbench[text]'")

STEPS, ROUNDS = 25, 12
MOST_OVER_BARE = 1.03


@pytest.fixture(autouse=True)
def _kernels_of_a_run() -> Iterator[None]:
    """Runs do not ask for deterministic algorithms, as the tests do."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True)


@pytest.mark.alone
@pytest.mark.parametrize("net", ["gru_w64_d0", "transformer_w64_l1_d0"])
def test_the_engine_costs_little_beside_a_bare_loop(net: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = run_config("plain", "phrases", [f"pair.student.net={net}"])
    data = load(config.task.data, Place(None, tmp_path))
    place = RunPlace(torch.device("cpu"), Home(tmp_path), None, tmp_path / "run")
    prepared = prepare(config, 0, place, data)
    run = StageRun(prepared.method, next(prepared.method.stages()), prepared.task)
    student = deepcopy(prepared.method.student).train()
    prepared.method.train()
    optimizer = torch.optim.Adam(student.parameters(), lr=4e-3, betas=(0.9, 0.98))
    sources = [[s for s in row if s != PAD] for row in data.train.x["source"].tolist()]
    targets = data.train.y.tolist()
    order = [[int(row) for row in batch] for batch in _rows(run)]

    def padded(rows: list[list[int]]) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])

    def bare(number: int) -> int:
        rows = order[number % len(order)]
        said = [targets[row] for row in rows]
        x = {"source": padded([sources[row] for row in rows]), PREFIX: padded([[BOS, *row[:-1]] for row in said])}
        y = torch.tensor([symbol for row in said for symbol in row])
        batch = Batch(x, y, y, counts=torch.tensor([len(row) for row in said]))
        loss = F.cross_entropy(student(batch).logits, y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return len(y)

    def engine(number: int) -> int:
        run.step()
        return sum(len(targets[row]) for row in order[number % len(order)])

    assert all(row[-1] == EOS for row in targets)
    took: dict[str, list[float]] = {"bare": [], "engine": []}
    for round_ in range(ROUNDS):
        for name, step in (("bare", bare), ("engine", engine))[:: 1 if round_ % 2 else -1]:
            begin, symbols = time.process_time(), 0
            for number in range(STEPS):
                symbols += step(round_ * STEPS + number)
            took[name].append((time.process_time() - begin) / symbols)
    low = {name: quantiles(values, n=4)[0] for name, values in took.items()}  # whatever else runs only adds
    ratio = low["engine"] / low["bare"]
    print(f"{net}: engine {1 / low['engine']:.0f} symbols/s, bare {1 / low['bare']:.0f}, ratio {ratio:.3f}")
    assert ratio <= MOST_OVER_BARE


def _rows(run: StageRun) -> list[torch.Tensor]:
    """Rows of the batches that the engine draws, in order."""
    loader = run.loader
    return [loader._index(number) for number in range(min(loader.steps * 12, STEPS * ROUNDS))]
