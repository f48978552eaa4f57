"""A tiny task of sentences, and methods of sentences on networks that answer with given scores, pass by pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from smalls import distinct
from torch import Tensor, nn

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.checks.tiny import Setting, rows, task_spec
from kdbench.contract import Batch, Out
from kdbench.engine.task import Keeper, Task

SETTING = Setting("translation", ("image",), False, "source", "gru_w8", "gru_w16")
SYMBOLS, VOCABULARY, NEAR = 12, 7, 3
"""Symbols of the made-up training part, of a vocabulary, and the neighbours of each."""
Y = torch.tensor([1, 4, 0, 6, 3, 3, 2, 5])
"""Those of the batch."""
INDEX = torch.tensor([11, 3, 4, 0, 7, 8, 1, 9])
"""Their numbers in the training part."""


def tiny() -> Any:
    return Task(task_spec(SETTING), rows(SETTING), torch.device("cpu"), 0, Keeper(Path("x"), Path("x"), {}))


class Passes(Stub):
    """Answers with the next of several scores at every pass, as under dropout."""

    def __init__(self, *scores: Tensor) -> None:
        super().__init__(Out(scores[0]))
        self.outs, self.passes = scores, 0
        self.dropout = nn.Dropout(0.1)

    def forward(self, batch: Batch) -> Out:
        self.passes += 1
        return Out(self.outs[(self.passes - 1) % len(self.outs)])


def drawn(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scores(which: int) -> Tensor:
    """(M, V) logits of one network or pass."""
    return drawn(which, len(Y), VOCABULARY)


def made(name: str, **given: Any) -> Assembled:
    """A method on a batch of :data:`Y`; the student's passes are ``scores(0)``, ``scores(1)``, the teacher's 2.

    Args:
        given: hyper-parameters; the others are all different.
    """
    near = {"neighbours": NEAR} if "neighbours" in distinct(name) else {}
    batch = batch_of(Y, index=INDEX)
    found = assembled(
        name, distinct(name, **{**near, **given}), batch, [Passes(scores(0), scores(1))], Stub(Out(scores(2))),
        kind="translation", smoothing=0.1, n_train=SYMBOLS, classes=VOCABULARY,
    )  # fmt: skip
    found.method.double()
    if near:
        method: Any = found.method
        method.symbols = torch.arange(SYMBOLS * NEAR).mul(5).remainder(VOCABULARY).view(SYMBOLS, NEAR).int()
        method.distances = drawn(9, SYMBOLS, NEAR).abs()
    return found
