"""The ranks of a run, and what they tell one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from kdbench.base.errors import UserError, described
from kdbench.contract import Batch

PATIENCE = timedelta(days=30)
"""Longest wait for what rank 0 tells: another run may be training the teacher."""
STEP_PATIENCE = timedelta(minutes=30)
"""Longest wait within a step: another rank may score the test rows or write a checkpoint meanwhile.

One that dies is noticed by gloo's connection; NCCL notices nothing, and neither sees one that hangs.
"""
FAILURE = "kdbench/failure"
"""Key of the group's store under which a rank leaves its failure."""
_Made = TypeVar("_Made")


@dataclass
class Ranks:
    """The processes of a run, seen from one of them; a run of one process is the default and exchanges nothing.

    Attributes:
        rank: this process, counted from 0; rank 0 alone writes.
        size: processes of the run.
    """

    rank: int = 0
    size: int = 1
    _rows: list[int] = field(default_factory=list)
    _store: Any = None
    _told: Any = None

    @classmethod
    def join(cls, collective: str, url: str = "env://", step_patience: timedelta = STEP_PATIENCE) -> Ranks:
        """Joins the processes that ``url`` names; torchrun's are those of the environment.

        Args:
            collective: backend of ``torch.distributed``; tensors of the CPU must have a way in it.
            step_patience: longest wait for another rank within a step.
        """
        store, rank, size = next(iter(rendezvous(url, timeout=PATIENCE)))
        dist.init_process_group(collective, timeout=step_patience, store=store, rank=rank, world_size=size)
        return cls(rank, size, _store=store, _told=dist.new_group(backend="gloo", timeout=PATIENCE))

    def leave(self) -> None:
        """Ends the group."""
        if self.several:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1

    # Rows

    def require_rows(self, rows: int) -> None:
        """Raises UserError when a batch of ``rows`` leaves a process without any."""
        if rows < self.size:
            raise UserError(
                f"a batch of {rows} rows cannot be shared by {self.size} processes; start fewer, or change train.batch "
                "so that the last batch of an epoch is larger"
            )

    def split(self, batch: Batch) -> Batch:
        """This rank's rows of a joined batch: of every view the same stretch; stretches differ by one row at most."""
        if not self.several:
            return batch
        rows = len(batch) // batch.views
        least, more = divmod(rows, self.size)
        self._rows = [least + (rank < more) for rank in range(self.size)]
        begin = sum(self._rows[: self.rank])
        own = slice(begin, begin + self._rows[self.rank])

        def cut(values: Tensor) -> Tensor:
            return batch.unview(values)[:, own].flatten(0, 1)

        return Batch(
            {name: cut(values) for name, values in batch.x.items()},
            cut(batch.y)
            if isinstance(batch.y, Tensor)
            else batch.y[cut(torch.arange(len(batch), device=batch.index.device))],
            cut(batch.index),
            batch.views,
            {name: cut(mask) for name, mask in batch.present.items()},
            visible=None if batch.visible is None else cut(batch.visible),
            seen=batch.seen,
        )

    @property
    def share(self) -> float:
        """This rank's share of the rows of the batch split last."""
        return self._rows[self.rank] / sum(self._rows) if self.several and self._rows else 1.0

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of the joined batch from each rank's (n V, ...), view-major as these; see ``TaskInfo.gather``.

        Raises:
            ValueError: ``rows`` are not one, or equally many, for each row of this rank's batch.
        """
        if not self.several:
            return rows
        own = self._rows[self.rank]
        if not len(rows) or len(rows) % own:
            raise ValueError(f"gather takes the rows of a batch, {own} for each view; it was given {len(rows)}")
        by_row = rows.unflatten(0, (-1, own)).transpose(0, 1).contiguous()
        gathered = _Gather.apply(by_row, tuple(self._rows), self.rank)
        return gathered.transpose(0, 1).flatten(0, 1)

    # Gradients and state

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients become their sums over all ranks; one that no rank has stays None, on every rank."""
        if not self.several:
            return
        # On the CPU, so that a GPU is not waited for.
        held = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for parameter, any_holds in zip(parameters, held.tolist(), strict=True):
            if any_holds:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                kinds.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for grads in kinds.values():
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            dist.all_reduce(flat)
            for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
                grad.copy_(summed.view_as(grad))

    def sum_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Detached 0-d terms of the joined batch, from each rank's own."""
        if not self.several:
            return {name: term.detach() for name, term in terms.items()}
        summed = torch.stack([term.detach() for term in terms.values()]) * self.share
        dist.all_reduce(summed)
        return dict(zip(terms, summed.unbind(), strict=True))

    def equalise(self, module: nn.Module) -> None:
        """Parameters and buffers become rank 0's."""
        if self.several:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)

    # Order

    def tell(self, value: Any = None) -> Any:
        """Rank 0's value, of JSON's types, on every rank; the others wait for it."""
        if not self.several:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor(len(text))
        dist.broadcast(length, 0, group=self._told)
        held = torch.tensor(list(text) if self.first else [0] * int(length), dtype=torch.uint8)
        dist.broadcast(held, 0, group=self._told)
        return json.loads(bytes(held.tolist()))

    def report(self, status: str, error: BaseException) -> None:
        """Leaves this rank's failure for rank 0 to record; when this process ends, the others' next exchange fails."""
        self._store.set(FAILURE, json.dumps({"rank": self.rank, "status": status, **_described(error)}))

    def reported(self) -> dict[str, str] | None:
        """``status``, ``kind`` and ``message`` of another rank's failure, None where none was reported."""
        if not self.several or not self._store.check([FAILURE]):
            return None
        failure = json.loads(self._store.get(FAILURE))
        return {**failure, "message": f"process {failure['rank']}: {failure['message']}"}

    def is_break(self, error: BaseException) -> bool:
        """Whether an exception says that an exchange with another process failed."""
        return self.several and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())

    def first_then_all(self, make: Callable[[], _Made]) -> _Made:
        """``make()`` on rank 0, and then, when it has left its files, on the others."""
        made = make() if self.first else None
        self.tell()
        return made if self.first else make()  # type: ignore[return-value]


def _described(error: BaseException) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": described(error)}


class _Gather(torch.autograd.Function):
    """(n, ...) rows of each rank to (N, ...) of all; the gradient of own rows is the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        most = max(counts)
        sent = rows.to(torch.uint8) if rows.dtype is torch.bool else rows
        if len(rows) < most:
            sent = torch.cat([sent, sent.new_zeros(most - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(sent) for _ in counts]
        dist.all_gather(parts, sent.contiguous())
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.split(ctx.counts)[ctx.rank], None, None
