"""Every method for real: 2 epochs of 5,000 rows of cifar100-resplit, resnet20 -> resnet8, on a CPU.

Methods of other modalities run on the spoken and handwritten digits.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kdbench.base.home import Home
from kdbench.runs import run
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(1500)]

TASK = "cifar100-resplit/small"
SHORT = ["train.epochs=2", "data.options.first.train=50", "data.options.first.test=10"]
SMALLER: dict[str, list[str]] = {
    "cgan_kd": [
        "method.nets=small", "method.features=teacher", "method.latent=32", "method.channels=16",
        "method.gan_batch=32", "method.d_steps=1", "method.gan_steps=20", "method.ratio_steps=3",
        "method.per_label=10", "method.burn_in=20", "method.proposals=50", "method.filter_burn_in=20",
    ],
}  # fmt: skip
"""Published settings that alone would take hours: cut to see the method run."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("real"))


@pytest.mark.parametrize("method", sorted(registry.method_packages()))
def test_two_epochs_of_cifar100(method: str, home: Home) -> None:
    teacher = ["pair.teachers.image.train.epochs=2", "pair.teachers.image.min_score=0"]
    config = run_config(method, TASK, [*SHORT, *teacher, *SMALLER.get(method, [])])
    data = Path(os.environ["KDBENCH_DATA"])
    record = run.run_seed(Request(config, 0, torch.device("cpu"), home, data, overhead="off"))
    if record.status == "not_applicable":
        assert record.error.message  # the reason, for the table
        return
    assert record.status == "ok", record.error
    first, last = record.curve[0], record.curve[-1]
    assert all(value == value for value in last.losses.values())
    assert last.step > first.step or len(record.curve) == 1
    assert 0 < record.metrics.last["top1"] <= 100


@pytest.mark.parametrize("task", ["av-digits", "av-digits/from-audio"])
def test_a_method_of_other_modalities_on_spoken_and_handwritten_digits(task: str, home: Home) -> None:
    roles = registry.task(task).pair.teachers
    teachers = [f"pair.teachers.{role}.{key}" for role in roles for key in ("train.epochs=2", "min_score=0")]
    config = run_config("ccl", task, ["train.epochs=8", *teachers])
    data = Path(os.environ["KDBENCH_DATA"])
    record = run.run_seed(Request(config, 0, torch.device("cpu"), home, data, overhead="off"))
    assert record.status == "ok", record.error
    first, last = record.curve[0].losses, record.curve[-1].losses
    assert last["task"] < first["task"]
    assert all(value == value for value in last.values())
    assert record.metrics.last["top1"] > 15
    assert record.metrics.last["recall1"] > 15
    assert record.deploy.equals_plain
