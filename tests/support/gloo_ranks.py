"""Several ranks of one run as forked processes: imports and fitted teachers are those of the test."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kdbench.parallel.ranks import Ranks

PATIENCE_S = 100


def on_ranks(size: int, folder: Path, work: Callable[[Ranks], Any]) -> list[Any]:
    """What ``work`` returned on each rank: tensors and plain values.

    Raises:
        AssertionError: a rank failed; its traceback is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(rank, size, folder, work))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_S)
        process.kill()
    failures = [path.read_text() for path in sorted(folder.glob("*.failed"))]
    assert not failures, "\n".join(failures)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _rank(rank: int, size: int, folder: Path, work: Callable[[Ranks], Any]) -> None:
    try:
        torch.set_num_threads(1)
        ranks = Ranks.join("gloo", f"file://{folder}/meeting?rank={rank}&world_size={size}")
        torch.save(work(ranks), folder / f"{rank}.pt")
        ranks.leave()
    except BaseException:
        (folder / f"{rank}.failed").write_text(traceback.format_exc())
        raise
