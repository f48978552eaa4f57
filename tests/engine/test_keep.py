"""What methods keep between stages: shared by task, recalled, cited in the ledger; and a group's own schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdbench.checks.tiny import Setting, rows, task_spec
from kdbench.contract import Group, Method, Stage
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Keeper, Task
from kdbench.engine.trainer import StageReport

REPORT = StageReport("gan", "generator_train", 7, 70, 1.5, True)


def keeper(root: Path, run: str, **params: object) -> Keeper:
    folder = root / run
    folder.mkdir(exist_ok=True)
    return Keeper(folder, root / "shared", {"params": params}, stages=lambda: [REPORT])


def make() -> dict[str, torch.Tensor]:
    return {"x": torch.arange(3)}


def refuse() -> dict[str, torch.Tensor]:
    raise AssertionError("made again")


def test_recall_finds_nothing_then_what_another_run_made(tmp_path):
    first, second = keeper(tmp_path, "a", width=1), keeper(tmp_path, "b", width=1)
    assert first.recall("fakes", "generate") is None
    first("fakes", make, "task", "generate")
    found = second.recall("fakes", "generate")
    assert torch.equal(found["x"], torch.arange(3))
    (entry,) = second.entries
    assert entry["reused"]
    assert entry["stages"] == [vars(REPORT)]


def test_a_resumed_run_does_not_call_its_own_artefact_reused(tmp_path):
    keeper(tmp_path, "a", width=1)("fakes", make, "task", "generate")
    again = keeper(tmp_path, "a", width=1)
    again("fakes", refuse, "task", "generate")
    assert not again.entries[0]["reused"]


def test_a_damaged_artefact_is_not_recalled(tmp_path):
    keeper(tmp_path, "a", width=1)("fakes", make, "task", "generate")
    (file,) = (tmp_path / "shared").glob("*/tensors.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert keeper(tmp_path, "b", width=1).recall("fakes", "generate") is None


@pytest.mark.parametrize(("uses", "shared"), [(None, False), (["width"], True), (["width", "inner"], False)])
def test_only_the_named_hyper_parameters_decide_what_is_shared(tmp_path, uses, shared):
    keeper(tmp_path, "a", width=1, inner=None)("fakes", make, "task", "generate", uses)
    found = keeper(tmp_path, "b", width=1, inner="kd").recall("fakes", "generate", uses)
    assert (found is not None) == shared


def test_a_group_may_divide_its_rate_at_fractions_of_the_stage(tmp_path):
    of = Setting("classification", ("image",), False, "image", "convnet_w2", "convnet_w2")
    task = Task(task_spec(of), rows(of), torch.device("cpu"), 0, keeper(tmp_path, "a"))
    weight = torch.nn.Parameter(torch.zeros(1))
    group = Group("g", [weight], {"name": "sgd", "lr": 2.0}, (0.5, 0.75))
    stage = Stage("s", [group], step=lambda draw, at, update: {}, steps=8)
    run = StageRun(Method(task, [], {}, None), stage, task)
    rates = []
    for _ in range(8):
        run.step()
        rates.append(run.optimizers["g"].param_groups[0]["lr"])
    assert rates == pytest.approx([2, 2, 2, 2, 0.2, 0.2, 0.02, 0.02])
