"""compress: what it minimises beside its golden vectors, its banks, the slow copy, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from queued import N, queued
from torch import nn

from kdbench import models
from kdbench.contract import Batch, Network, NotApplicable, Out
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.reached import reached

HP = {"queue": 8}


class Looked(Network):
    """A row's embedding is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(N, 3)

    def forward(self, batch: Batch) -> Out:
        rows = self.table(batch.x["image"])
        return Out(rows, emb=rows)


def _copy(name: str) -> None:
    torch.manual_seed(0)
    z = torch.randn(N, 4)
    values = []
    for student in (z, torch.randn(N, 4)):
        given = student.clone().requires_grad_()
        torch.manual_seed(1)
        made = queued(name, HP, given, z)
        banks: Any = made.method.banks
        banks[-1].rows.copy_(banks[0].rows)
        loss = made.total()
        (slope,) = torch.autograd.grad(loss, given)
        values.append((loss.item(), slope.abs().max().item()))
    assert values[0][0] == pytest.approx(0.0, abs=1e-6)
    assert values[1][0] > 0.01
    assert values[0][1] == pytest.approx(0.0, abs=1e-6)


def check_copy() -> None:
    """A copy of the teacher with banks of the same rows has no loss and no gradient."""
    _copy("compress")
    _copy("compress+1q")


def check_start() -> None:
    """Banks start uniform with an expected squared norm of 1."""
    torch.manual_seed(0)
    made: Any = queued("compress", {"queue": 12}, torch.randn(N, 300), torch.randn(N, 400)).method
    assert [tuple(bank.rows.shape) for bank in made.banks] == [(12, 400), (12, 300)]
    for bank in made.banks:
        assert bank.rows.square().sum(dim=1).mean().item() == pytest.approx(1.0, abs=0.05)
        assert bank.rows.abs().max().item() <= (3 / bank.rows.shape[1]) ** 0.5


def check_slow_copy() -> None:
    """It follows the student, learns nothing itself, and fills the student's bank with what it saw before it moved."""
    net = Looked()
    made = queued("compress+momentum", HP | {"momentum": 0.9}, net, torch.randn(N, 4))
    method: Any = made.method
    first = net.table.weight.detach().clone()
    with torch.no_grad():
        net.table.weight.add_(1.0)
    assert made.total().requires_grad
    made.step()
    torch.testing.assert_close(method.banks[1].rows[:N], unit(first))
    torch.testing.assert_close(method.slow.table.weight, first + 0.1)
    assert not any(p.requires_grad for p in method.slow.parameters())
    assert not made.handed[1].requires_grad


def check_refusals() -> None:
    wide, narrow = torch.randn(N, 4), torch.randn(N, 3)
    for name, hp, line in [
        ("compress", {"queue": 13}, "longer than the 12 of the data"),
        ("compress+1q", HP, "one width, student has 3, teacher 4"),
    ]:
        with pytest.raises(NotApplicable, match=line):
            queued(name, hp, narrow, wide)
    assert queued("compress", HP, narrow, wide).method.slow is None


def check_stage() -> None:
    """One stage of the task's epochs that sees each row once."""
    made = queued("compress", HP, torch.randn(N, 4), torch.randn(N, 4))
    ((name, stage),) = made.stages().items()
    assert (name, stage.epochs) == ("distill", made.method.task.epochs)
    assert stage.views is not None
    assert (stage.views.n, stage.views.input) == (1, "image")
    assert list(made.terms()) == ["compress"]


def check_group() -> None:
    """The body is trained, the projection head behind the embedding is not."""
    net = models.build("project8:convnet_w4", (1, 8, 8), 0)
    body = [p for name, p in net.body.named_parameters() if not name.startswith("fc.")]
    found = reached(net, Batch({"image": torch.zeros(2, 1, 8, 8)}, None, torch.arange(2)), lambda out: out.emb)
    assert [id(p) for p in found] == [id(p) for p in body]
    assert net.training
    looked = Looked()
    (group,) = queued("compress", HP, looked, torch.randn(N, 4)).method.groups()
    assert group.params == [looked.table.weight]


CHECKS = [check_copy, check_start, check_slow_copy, check_refusals, check_stage, check_group]


@pytest.mark.parametrize("check", CHECKS)
def test_compress(check):
    check()
