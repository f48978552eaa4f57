"""seed: what it minimises beside its golden vectors, its queue, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from queued import N, queued

from kdbench.contract import NotApplicable
from kdbench.methods.shared.queues import Queue

HP = {"queue": 8, "temperature_s": 0.1, "temperature_t": 0.1}


def check_queue() -> None:
    queue = Queue(torch.zeros(5, 1))
    for first in (1.0, 4.0, 7.0):
        queue.write(torch.arange(first, first + 3)[:, None])
    assert queue.rows[:, 0].tolist() == [6.0, 7.0, 8.0, 9.0, 5.0]
    assert int(queue.at) == 4
    queue.write(torch.arange(8.0)[:, None])
    assert sorted(queue.rows[:, 0].tolist()) == [3.0, 4.0, 5.0, 6.0, 7.0]


def check_copy() -> None:
    """A copy of the teacher has the least loss there is, and no gradient."""
    torch.manual_seed(0)
    z = torch.randn(N, 4)
    values = []
    for student in (z, torch.randn(N, 4)):
        given = student.clone().requires_grad_()
        torch.manual_seed(1)
        loss = queued("seed", HP, given, z).total()
        (slope,) = torch.autograd.grad(loss, given)
        values.append((loss.item(), slope.abs().max().item()))
    assert values[0][0] < values[1][0]
    assert values[0][1] == pytest.approx(0.0, abs=1e-6)


def check_start() -> None:
    made = queued("seed", HP, torch.randn(N, 4), torch.randn(N, 4))
    rows = made.method.queue.rows
    assert rows.shape == (8, 4)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(8))


def check_refusals() -> None:
    wide, narrow = torch.randn(N, 4), torch.randn(N, 3)
    for hp, student, line in [
        (HP | {"queue": 13}, wide, "longer than the 12 of the data"),
        (HP, narrow, "need projections of one width, they have 3 and 4"),
    ]:
        with pytest.raises(NotApplicable, match=line):
            queued("seed", hp, student, wide)


def check_stage() -> None:
    """One stage of the task's epochs that sees each row once and trains the student alone."""
    made = queued("seed", HP, torch.randn(N, 4), torch.randn(N, 4))
    ((name, stage),) = made.stages().items()
    assert (name, stage.epochs) == ("distill", made.method.task.epochs)
    assert stage.views is not None
    assert (stage.views.n, stage.views.where, stage.views.input) == (1, "raw", "image")
    assert stage.views.fn(torch.zeros(3, 1, 2, 2), torch.Generator()).shape == (1, 3, 1, 2, 2)
    assert list(made.terms()) == ["seed"]


CHECKS = [check_queue, check_copy, check_start, check_refusals, check_stage]


@pytest.mark.parametrize("check", CHECKS)
def test_seed(check):
    check()
