"""Hashing retrieval: networks give bits, training sees no label, rows are searched by Hamming distance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds.base import DATABASE, TEACHER_DATABASE, Evidence, Kind, Metric, Scaling, Tiny, Vector
from kdbench.kinds.contrastive import EPS, ONE_PROCESS, contrast, numbers, pairs, two_views, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Rows, Views

TEMPERATURE, KL_WEIGHT = 0.3, 0.001
"""Of CIBHash's loss, as its code sets them."""


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Half of KL(p || q) + KL(q || p) of two views' bits as chances p, q to be 1, the second argument constant, 0-d.

    Args:
        one, other: (N, L) scores of the same rows; a KL sums over bits and is a mean over rows.
    """

    def directed(p: Tensor, q: Tensor) -> Tensor:
        up, down = ((p + EPS) / (q + EPS)).log(), ((1 - p + EPS) / (1 - q + EPS)).log()
        return (p * up + (1 - p) * down).sum(dim=1).mean()

    p, q = one.sigmoid(), other.sigmoid()
    return (directed(p, q.detach()) + directed(q, p.detach())) / 2


def _precisions(p: Evidence, searched: str) -> Any:
    """Average precision of each query, in blocks of queries."""
    from kdbench.stats.retrieval import average_precisions

    database = getattr(p, searched)
    queries, rows, of_queries, of_rows = (one.cpu().numpy() for one in (p.output, database[0], p.y, database[1]))
    return list(average_precisions(queries, rows, of_queries, of_rows, p.k))


def _blind(y: Sequence[float]) -> float:
    """Of one and the same code for all rows, in classes without an order."""
    return 100 * sum((count / len(y)) ** 2 for count in Counter(y).values())


def _map(about: str, searched: str, word: str) -> Metric:
    blocks = partial(_precisions, searched=searched)

    def mean(p: Evidence) -> Tensor:
        import torch

        from kdbench.stats.retrieval import mean_of

        return torch.tensor(100 * mean_of(p.once(blocks)), dtype=torch.float64)

    def each(p: Evidence) -> Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(100 * np.concatenate(p.once(blocks)))

    return Metric(
        True, "%", about, mean, frozenset({searched}), 100.0, chance=_blind, word=word, ranks=True, each=each
    )  # fmt: skip


class Hashing(Kind):
    """Targets are classes and decide in scoring alone what is relevant; training sees the rows' own numbers instead.

    The loss is CIBHash's (Qiu et al., IJCAI 2021) on two views of each row, each augmented by itself. The database is
    all training rows, the queries are the test rows.
    """

    name = "hashing"
    about = "bits that find rows of a query's class"
    metrics: ClassVar = {
        "map": _map("mean average precision, the network's own codes searched", DATABASE, "mAP"),
        "map_teacher_database": _map(
            "mean average precision, the teacher's codes searched with the network's", TEACHER_DATABASE, "mAP (teacher)"
        ),
    }
    tiny = Tiny("map", lambda pixels, digits: digits, wraps="hash8:")
    vector = Vector("logits", "code", bits=True)
    lacks = frozenset({"classifier", "tail"})
    one_process = ONE_PROCESS
    least_batch = 2

    @property
    def views(self) -> Views | None:
        return two_views()

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        return "a number to predict" if label_range is not None else None

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        if k is not None and k > len(train.y):
            return f"score.k={k} is more than the {len(train.y)} rows of the database; lower score.k"
        if missing := unknown(train, test):
            return f"the database (the training rows) has no row of the queries' class {missing}; change the data"
        return None

    def scaled(self, y: Any, scaling: Scaling) -> Any:
        return numbers(y)

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """Mean over all pairs of views; a batch of one view is compared with itself."""
        import torch

        from kdbench.contract import bits

        two = pairs(out.code, batch)
        terms = [contrast(bits(a), bits(b), TEMPERATURE) + KL_WEIGHT * divergence(a, b) for a, b in two]
        return torch.stack(terms).mean()

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """(N, L) int8 bits; a score of exactly 0 counts as 1."""
        import torch

        return torch.where(out.logits >= 0, 1, -1).to(torch.int8)


KIND = Hashing()
