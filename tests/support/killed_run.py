"""A tiny run to be killed from outside: ``python killed_run.py FOLDER TOY SECONDS``, sleeping so long at each step."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import torch

from kdbench.checks.tiny import Tiny, method_config, tiny
from kdbench.engine.assemble import Prepared, hyper_parameters
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trained, Trainer

EVERY_STEP = 0.0


def toy_task(ref: Any, kind: str) -> Tiny:
    """A toy method on a tiny task."""
    config = method_config(ref)
    return tiny(ref, config, ref.adapter().needs(hyper_parameters(config)), kind)


def train(task: Tiny, folder: Path, checkpoint_seconds: float = EVERY_STEP, seed: int = 0) -> tuple[Prepared, Trained]:
    """Trains to the end, from the checkpoint in ``folder`` if there is one."""
    prepared = task.prepare(folder, seed)
    return prepared, Trainer(prepared.method, prepared.task, folder / "run", None, None, checkpoint_seconds).run()


def main(folder: str, toy: str, seconds: str) -> None:
    """Trains slowly."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    spec = importlib.util.spec_from_file_location(
        "kdbench_tests.support.toy_methods", Path(__file__).with_name("toy_methods.py")
    )
    assert spec is not None
    assert spec.loader is not None
    toys = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = toys
    spec.loader.exec_module(toys)
    step = StageRun.step

    def slow(self: StageRun) -> dict[str, torch.Tensor]:
        time.sleep(float(seconds))
        return step(self)

    StageRun.step = slow  # type: ignore[method-assign]
    train(toy_task(toys.toy_ref(getattr(toys, toy)), "classification"), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
