"""TinyMIM (Ren et al., CVPR 2023, section 3.2): relations among tokens of one block are the teacher's.

Shapes: N pictures, H heads of the teacher's block, T tokens of a whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Group, Method, Needs, NotApplicable, Out, Stage
from kdbench.methods.shared.blocks import at_depth
from kdbench.methods.shared.queues import one_view
from kdbench.methods.shared.reached import reached


def in_heads(qkv: Tensor, heads: int) -> Tensor:
    """(N, 3, h, T, d) by other heads: (N, 3, heads, T, h d / heads)."""
    return qkv.transpose(2, 3).flatten(3).unflatten(3, (heads, -1)).transpose(2, 3)


def relation(x: Tensor, y: Tensor) -> Tensor:
    """(N, H, T, T) log softmax(x y^T / sqrt(d)) of (N, H, T, d)."""
    return (x @ y.transpose(2, 3) / x.shape[3] ** 0.5).log_softmax(dim=3)


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pictures, heads and rows of KL(teacher row || student row), 0-d, of log relations."""
    return (teacher.exp() * (teacher - student)).sum(dim=3).mean()


class TinyMIM(Method):
    """Relations of queries with keys and of values with values: the student's last block follows one of the teacher's.

    The student's queries, keys and values are cut into as many heads as the teacher's block has.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        qkv = frozenset({"qkv"})
        return Needs(kinds=frozenset({"representation"}), inputs="same", student=qkv, teacher=qkv)

    def setup(self) -> None:
        own, other = self.task.probe(self.student).qkv[-1], self._taught(self.task.probe(self.teacher))
        self.heads = other.shape[2]
        width = own.shape[2] * own.shape[4]
        if width % self.heads:
            raise NotApplicable(
                f"the student's {width} numbers of a token cannot be cut into the teacher's {self.heads} heads"
            )
        if own.shape[3] != other.shape[3]:
            raise NotApplicable(
                f"student and teacher need patches of one size, they have {own.shape[3] - 1} and {other.shape[3] - 1} "
                "of a picture"
            )

    def _taught(self, out: Out) -> Tensor:
        return at_depth(out.qkv, self.hp.depth)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        taught = self._taught(self.teacher(batch)).unbind(1)
        own = in_heads(self.student(batch).qkv[-1], self.heads).unbind(1)
        pairs = {"qk": (0, 1), "vv": (2, 2)}
        return {
            name: divergence(relation(own[a], own[b]), relation(taught[a], taught[b])) for name, (a, b) in pairs.items()
        }

    def groups(self) -> list[Group]:
        """What the last block's queries, keys and values depend on; what lies behind them stays as it is."""
        rows = self.task.rows(torch.zeros(2, dtype=torch.int64, device=self.task.device))
        return [Group("student", reached(self.student, self.task.wrap(rows), lambda out: out.qkv[-1]))]

    def stages(self) -> Iterator[Stage]:
        view = one_view(self.student.input)
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs, views=view)
