"""Queues of embeddings: what a network said of rows of earlier batches, the oldest replaced first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.contract import NotApplicable, TaskInfo, Views


class Queue(nn.Module):
    """Rows on the training device, buffers and therefore part of every checkpoint.

    Args:
        rows: (K, D) what it starts with.
    """

    rows: Tensor
    at: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def write(self, values: Tensor) -> None:
        """(N, D) values take the place of the N oldest rows; of more than it holds the last."""
        values = values[-len(self.rows) :]
        places = torch.arange(len(values), device=values.device) + self.at
        self.rows[places.remainder(len(self.rows))] = values.to(self.rows)
        self.at.add_(len(values)).remainder_(len(self.rows))


def checked(rows: int, task: TaskInfo) -> int:
    """The length of a queue.

    Raises:
        NotApplicable: it is longer than the data, so that rows would be compared with what was said of themselves.
    """
    if rows > task.n_train:
        raise NotApplicable(f"a queue of {rows} rows is longer than the {task.n_train} of the data; lower method.queue")
    return rows


def one_view(name: str) -> Views:
    """Each row once, augmented by the task, in the place of the views of the task's own loss.

    Args:
        name: the input.
    """
    return Views(1, once, where="raw", input=name)


def once(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Pixels as one view of themselves."""
    return pixels[None]
