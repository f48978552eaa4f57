"""Memory banks of embeddings, and negatives of other classes, all on the training device.

A bank scores a whole batch against all of its n rows in one product and then weighs each row by how often it was drawn
(:func:`multiplicity`). That is (N, n) numbers where gathering K drawn rows of width D takes (N, K, D), and the backward
pass is a product too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import NotApplicable
from kdbench.methods.shared.matching import unit


class MemoryBank(nn.Module):
    """One embedding for each training row, a buffer and therefore part of every checkpoint.

    Rows start uniform with an expected squared norm of 1 (CRD, HKD), drawn from the global generator.

    Args:
        n: rows of the training set.
        width: D of the embeddings.
    """

    rows: Tensor

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.empty(n, width).uniform_(-1, 1) * (3 / width) ** 0.5)

    @torch.no_grad()
    def update(self, index: Tensor, values: Tensor, momentum: float, views: int = 1) -> None:
        """Move rows towards new values and bring them back to unit length.

        Args:
            index: (N*V,) row numbers, each at most once within a view; views are written one after the other.
            values: (N*V, D) embeddings.
            momentum: share of the old row that stays.
        """
        for rows, new in zip(index.chunk(views), values.chunk(views), strict=True):
            mixed = momentum * self.rows[rows] + (1 - momentum) * new.to(self.rows)
            self.rows[rows] = unit(mixed)


def fewest_negatives(labels: Tensor) -> int:
    """Rows of other classes that the largest class leaves: so many distinct negatives every sample can have.

    Args:
        labels: (n,) class of each training row.

    Raises:
        NotApplicable: all rows have one class, so nothing is a negative.
    """
    fewest = len(labels) - int(labels.bincount().max())
    if not fewest:
        raise NotApplicable("it needs at least 2 classes in the training rows, negatives are of another class")
    return fewest


class Negatives:
    """Draws training rows of other classes, uniformly: distinct ones where a class leaves enough, else with repeats.

    Args:
        labels: (n,) class of each training row.
        k: negatives of each sample.

    Raises:
        NotApplicable: all rows have one class.
    """

    def __init__(self, labels: Tensor, k: int) -> None:
        self.labels, self.k = labels, k
        self._fewest = fewest_negatives(labels)
        self._by_class = labels.argsort(stable=True)
        self._size = labels.bincount()
        self._start = self._size.cumsum(0) - self._size
        self._most = len(labels) - int(self._size[self._size > 0].min())

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """(N, K) row numbers, none of the class of its sample.

        Args:
            y: (N,) classes that occur among the labels.
            rng: on the device of the labels.
        """
        if self.k <= self._fewest:
            return self._distinct(y, rng)
        repeated = self._repeated(y, rng)
        if self.k > self._most:
            return repeated
        enough = self.k <= len(self.labels) - self._size[y]
        return torch.where(enough[:, None], self._distinct(y, rng), repeated)

    def _distinct(self, y: Tensor, rng: torch.Generator) -> Tensor:
        keys = torch.rand(len(y), len(self.labels), generator=rng, device=y.device)
        return keys.masked_fill_(y[:, None] == self.labels, -1.0).topk(self.k, dim=1, sorted=False).indices

    def _repeated(self, y: Tensor, rng: torch.Generator) -> Tensor:
        size, start = self._size[y][:, None], self._start[y][:, None]
        uniform = torch.rand(len(y), self.k, generator=rng, device=y.device, dtype=torch.float64)
        place = (uniform * (len(self.labels) - size)).long()
        return self._by_class[place + size * (place >= start)]  # the class's own stretch is stepped over


def multiplicity(index: Tensor, n: int) -> Tensor:
    """(N, n) float: how often each of n rows occurs among the (N, K) drawn ones."""
    counts = torch.zeros(len(index), n, device=index.device)
    return counts.scatter_add_(1, index, torch.ones((), device=index.device).expand(index.shape))


def info_nce(anchor: Tensor, positive: Tensor, bank: Tensor, log_counts: Tensor, temperature: float) -> Tensor:
    """InfoNCE of one positive and bank rows as negatives (van den Oord et al. 2018, equation 4), 0-d, mean over N.

    Args:
        anchor, positive: (N, D) unit rows.
        bank: (n, D) rows, constants.
        log_counts: (N, n) log of how often each row is a negative; -inf leaves it out.
        temperature: divides the products.
    """
    own = (anchor * positive).sum(dim=1, keepdim=True) / temperature
    others = anchor @ bank.detach().T / temperature + log_counts
    return F.cross_entropy(torch.cat([own, others], dim=1), torch.zeros(len(own), dtype=torch.long, device=own.device))
