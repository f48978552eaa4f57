"""Golden cases of hashing methods: networks that answer with scores of bits, and the task's own loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, watched
from kdbench.contract import Out, bits
from kdbench.kinds import hashing


def net(*views: Tensor) -> Stub:
    """A hashing net that answers the rows of view 0, then those of view 1."""
    code = torch.cat(views)
    return Stub(Out(code, emb=bits(code), code=code))


def two_views(
    name: str, values: Mapping[str, Any], student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor] | None = None
) -> Assembled:
    """A method on a batch of N rows in two views."""
    n = len(student[0])
    numbers = torch.arange(n).repeat(2)
    batch = batch_of(numbers, rows=torch.arange(2 * n), views=2, index=numbers)
    return assembled(
        name, values, batch, [net(*student)], net(*teacher) if teacher else None, kind="hashing", n_train=n
    )


@contextmanager
def own_loss(scalars: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """The task's loss at a case's temperature and weight; its two terms are noted."""
    settings = {"TEMPERATURE": scalars["temperature"], "KL_WEIGHT": scalars["weight"]}
    with patch.multiple(hashing, **settings), watched(hashing, "contrast", "divergence") as calls:
        yield calls
