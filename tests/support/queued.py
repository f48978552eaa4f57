"""Methods that compare embeddings with queues of earlier ones, on networks that answer with given embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.contract import Batch, Network, Out

N, TRAINED = 6, 12
"""Rows of a batch and of the data."""


def answering(rows: Tensor) -> Stub:
    """A net whose projection and embedding are the same."""
    return Stub(Out(rows, emb=rows))


def queued(name: str, hp: dict[str, Any], student: Tensor | Network, teacher: Tensor) -> Assembled:
    """A method on a batch of N rows, each seen once."""
    net = answering(student) if isinstance(student, Tensor) else student
    batch: Batch = batch_of(torch.arange(N))
    return assembled(name, hp, batch, [net], answering(teacher), kind="representation", n_train=TRAINED)
