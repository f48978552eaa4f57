"""Overrides applied beside ``hydra.compose`` of the same mapping: ``pytest tests/bench_overrides.py -s -n0``.

Both take turns in one process; their processor time is compared, and what they give is equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from kdbench.specs import registry
from kdbench.specs.block import ALL_KEYS
from kdbench.specs.compose import compose_with, read_overrides

ROUNDS = 30
WORDS = ["train.optimizer.lr=0.02", "train.epochs=7", "data.subset.per_class=5"]
LEAST_GAIN = 5.0


def composed_by_hydra(node: dict[str, Any]) -> Any:
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="run", node=OmegaConf.create(node))
    with initialize(version_base="1.3", config_path=None):
        return OmegaConf.to_container(compose("run", overrides=WORDS), resolve=False)


def seconds(done: Callable[[], object]) -> float:
    start = time.process_time()
    done()
    return time.process_time() - start


@pytest.mark.alone
def test_overrides_are_applied_faster_than_hydra_composes() -> None:
    node = registry.task("digits/few-shot").model_dump(mode="json", exclude={"name"}, context=ALL_KEYS)
    parsed = read_overrides(WORDS)
    assert compose_with(node, parsed) == composed_by_hydra(node)
    turns = [
        (seconds(lambda: composed_by_hydra(node)), seconds(lambda: compose_with(node, parsed))) for _ in range(ROUNDS)
    ]
    theirs, ours = (median(times) for times in zip(*turns, strict=True))
    print(f"hydra.compose {1e3 * theirs:.1f} ms, applied {1e3 * ours:.1f} ms, {theirs / ours:.0f} times")
    assert theirs / ours > LEAST_GAIN
