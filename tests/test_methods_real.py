"""Every method for real: 2 epochs of 5,000 rows of cifar100-resplit, resnet20 -> resnet8, on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kdbench import registry
from kdbench.config import run_config
from kdbench.engine import run
from kdbench.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(1500)]

TASK = "cifar100-resplit/small"
SHORT = ["train.epochs=2", "data.options.first.train=50", "data.options.first.test=10"]
SMALLER: dict[str, list[str]] = {
    "cgan_kd": [
        "method.nets=small", "method.features=teacher", "method.latent=32", "method.channels=16",
        "method.gan_batch=32", "method.d_steps=1", "method.gan_steps=20", "method.ratio_steps=3",
    ],
}  # fmt: skip
"""Published settings that alone would take hours: cut to see the method run."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize("method", sorted(registry.method_packages()))
def test_two_epochs_of_cifar100(method, home):
    teacher = ["pair.teachers.image.train.epochs=2", "pair.teachers.image.min_score=0"]
    config = run_config(method, TASK, [*SHORT, *teacher, *SMALLER.get(method, [])])
    data = Path(os.environ["KDBENCH_DATA"])
    record = run.evaluate(run.Request(config, 0, torch.device("cpu"), home, data, overhead="off"))
    if record.status == "not_applicable":
        assert record.error.message  # the reason, for the table
        return
    assert record.status == "ok", record.error
    first, last = record.curve[0], record.curve[-1]
    assert all(value == value for value in last.losses.values())
    assert last.step > first.step or len(record.curve) == 1
    assert 0 < record.metrics.last["top1"] <= 100
