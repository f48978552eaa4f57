"""What the objectives of methods are asked and worked out with, on made-up outputs."""

from __future__ import annotations

from typing import Any

import torch
from smalls import losses, small
from torch import Tensor

from kdbench.checks.stubs import Assembled


def terms_of(made: Assembled) -> dict[str, Tensor]:
    """The terms of all stages, those of the last stage where two have one name."""
    torch.manual_seed(7)
    return {term: value for _, _, terms in losses(made) for term, value in terms.items()}


def built(name: str, **given: Any) -> Assembled:
    torch.manual_seed(0)
    return small(name, **given)


def kl(student: Tensor, teacher: Tensor, t: float = 1.0) -> Tensor:
    """mean_n sum_c q log(q / p), q of the teacher and p of the student at a temperature."""
    q, p = ((z / t).softmax(1) for z in (teacher, student))
    return (q * (q / p).log()).sum(1).mean()


def ce(logits: Tensor, y: Tensor) -> Tensor:
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def logits(made: Assembled) -> list[Tensor]:
    """Of all students, then of all teachers."""
    nets = [*made.method.students, *made.method.teachers.values()]
    return [net.out.logits[: len(made.batch)].double() for net in nets]


def maps(made: Assembled, which: int) -> tuple[Tensor, ...]:
    net = [*made.method.students, *made.method.teachers.values()][which]
    return tuple(x[: len(made.batch)] for x in net.out.maps)
