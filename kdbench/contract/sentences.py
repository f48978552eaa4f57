"""Targets of sentences: the symbols that a network predicts, flat, with how many each sentence has.

Padding stands in inputs alone. A batch's targets are the real symbols of all its sentences, one after the other, and
a network answers for these in the same order, so that whatever is a mean over rows is one over real symbols.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.contract.batch import Batch
from kdbench.contract.targets import Ragged, picked

PAD, BOS, EOS, UNK = range(4)
"""Symbols of every vocabulary: padding, begin and end of a sentence, and what the vocabulary does not hold."""
SPECIAL = 4
"""How many these are."""
TARGET, PREFIX = "target", "target_in"
"""The vocabulary of the targets, and the input that holds them, one place later, behind a :data:`BOS`."""


class Vocabulary(NamedTuple):
    """Which symbols there are.

    Attributes:
        size: how many, the special ones among them.
        digest: sha256 of the file that makes texts of them.
    """

    size: int
    digest: str


@dataclass(frozen=True, eq=False)
class Sentences:
    """The target symbols of N sentences, each ending in :data:`EOS`, and the sentences as texts.

    Attributes:
        symbols: (M,) of all sentences, one after the other.
        counts: (N,) int64, how many each has, at least one; M is their sum.
        begins: (N,) int64, the number that a sentence's first symbol has among those of the training set.
        texts: the sentences as they came, as bytes in UTF-8.
        subwords: (B,) uint8, the file that makes texts of symbols.
    """

    symbols: Tensor
    counts: Tensor
    begins: Tensor
    texts: Ragged
    subwords: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], texts: Sequence[str], subwords: bytes) -> Sentences:
        """From a list of symbols of each sentence, without its end, and the sentence itself."""
        made = Ragged.of([[*row, EOS] for row in rows], torch.int32)
        written = Ragged.of([text.encode() for text in texts], torch.uint8)
        content = torch.tensor(list(subwords), dtype=torch.uint8)
        return cls(made.values, made.counts, first(made.counts), written, content)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor | slice) -> Sentences:
        places, counts = picked(self.counts, index)
        return Sentences(self.symbols[places], counts, self.begins[index], self.texts[index], self.subwords)

    def to(self, device: torch.device) -> Sentences:
        moved = (one.to(device) for one in (self.symbols, self.counts, self.begins, self.texts, self.subwords))
        return Sentences(*moved)  # type: ignore[arg-type]

    def repeat(self, times: int) -> Sentences:
        return Sentences(
            self.symbols.repeat(times), self.counts.repeat(times), self.begins.repeat(times), self.texts.repeat(times),
            self.subwords,
        )  # fmt: skip

    def tensors(self) -> Mapping[str, Tensor]:
        texts = {f"texts.{name}": held for name, held in self.texts.tensors().items()}
        own = {"symbols": self.symbols, "counts": self.counts, "begins": self.begins, "subwords": self.subwords}
        return {**own, **texts}

    def tolist(self) -> list[list[int]]:
        """The symbols of each sentence, its end among them."""
        return [part.tolist() for part in self.symbols.split(self.counts.tolist())]

    def join(self, other: Sentences) -> Sentences:
        """The sentences of ``other`` behind these; all are numbered anew."""
        both = Sentences(
            torch.cat([self.symbols, other.symbols.to(self.symbols)]), torch.cat([self.counts, other.counts]),
            torch.cat([self.begins, other.begins]), self.texts.join(other.texts), self.subwords,
        )  # fmt: skip
        return both.numbered()

    def numbered(self) -> Sentences:
        """The same sentences, whose symbols are numbered from 0 in this order."""
        return replace(self, begins=first(self.counts))

    def replaced(self, rows: Sequence[Sequence[int]]) -> Sentences:
        """Other symbols for the same sentences, without their ends; the texts stay as they came."""
        made = Ragged.of([[*row, EOS] for row in rows], torch.int32).to(self.counts.device)
        return replace(self, symbols=made.values, counts=made.counts, begins=first(made.counts))

    def written(self) -> list[str]:
        """The sentences as they came."""
        return [bytes(part.tolist()).decode() for part in self.texts.values.cpu().split(self.texts.counts.tolist())]

    @property
    def flat(self) -> Tensor:
        """(M,) int64 symbols."""
        return self.symbols.long()

    @property
    def index(self) -> Tensor:
        """(M,) the number of each symbol among those of the training set."""
        ahead = (self.counts.cumsum(0) - self.counts).repeat_interleave(self.counts)
        within = torch.arange(len(self.symbols), device=self.counts.device) - ahead
        return self.begins.repeat_interleave(self.counts) + within

    @functools.cached_property
    def _starts(self) -> Tensor:
        """(N,) where a sentence's symbols begin in ``symbols``; every batch asks."""
        return first(self.counts)

    @functools.cached_property
    def _shift(self) -> Tensor | None:
        """(N,) from the places of a sentence's symbols in ``symbols`` to their numbers; None where these are equal."""
        shift = self.begins - self._starts
        return shift if bool(shift.any()) else None

    def drawn(self, rows: Tensor, x: Mapping[str, Tensor]) -> Batch:
        """A batch of some of these sentences, by number; their texts are not looked at. Args: as of :meth:`batch`."""
        counts = self.counts[rows]
        grid, there = spread(self._starts[rows], counts)
        places = grid[there]
        index = places if self._shift is None else (grid + self._shift[rows][:, None])[there]
        inputs = {name: cut(values.long()) for name, values in x.items()}
        inputs[PREFIX] = prefixes(self.symbols, grid, there)
        return Batch(inputs, self.symbols[places].long(), index, counts=counts)

    def batch(self, x: Mapping[str, Tensor]) -> Batch:
        """A batch of these sentences; every input is cut to the longest that one of them has.

        Args:
            x: input name to (N, ...) symbols, padded at the end.
        """
        return self.drawn(torch.arange(len(self), device=self.counts.device), x)


def first(counts: Tensor) -> Tensor:
    """(N,) the number of each sentence's first symbol, of sentences one after the other."""
    return counts.cumsum(0) - counts


def spread(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T) int64 places of the symbols of sentences, T of the longest, and (N, T) bool, True where one is its own.

    Args:
        starts, counts: (N,) where each begins, and how many symbols it has.
    """
    within = torch.arange(int(counts.max()), device=counts.device)
    return starts[:, None] + within, within < counts[:, None]


def prefixes(symbols: Tensor, grid: Tensor, there: Tensor) -> Tensor:
    """(N, T) int64 symbols one place later, behind a :data:`BOS`, padded to the longest; their ends are left out.

    Args:
        symbols: (M,) of sentences one after the other.
        grid, there: as of :func:`spread`.
    """
    before = symbols[(grid - 1).clamp_(0, len(symbols) - 1)]  # what is not its own may lie outside
    found = before.long().masked_fill_(~there, PAD)
    found[:, 0] = BOS
    return found


def real(counts: Tensor, width: int) -> Tensor:
    """(N, T) bool, True where a sentence has a symbol."""
    return torch.arange(width, device=counts.device) < counts[:, None]


def cut(x: Tensor) -> Tensor:
    """(N, S) symbols without the columns at the end that are padding in every row."""
    return x[:, : int((x != PAD).sum(1).max())] if x.numel() else x


def pad_rows(rows: Sequence[Sequence[int]], dtype: torch.dtype = torch.int32) -> Tensor:
    """(N, S) symbols from one list a row, :data:`PAD` behind them."""
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows], dtype=dtype).reshape(len(rows), width)
