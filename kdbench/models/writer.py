"""What networks that write sentences share: answers for real symbols alone, and writing a sentence symbol by symbol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Batch, Network, Out, Vocabulary
from kdbench.contract.sentences import BOS, EOS, PAD, PREFIX, UNK, cut, real

NEVER = [PAD, BOS, UNK]
"""Symbols that no network writes."""
KEY = "subwords"
"""Of a state: digests of the vocabularies that the weights were trained with."""


class Writer(Network):
    """A network that reads symbols and answers for each real symbol of the targets; logits are ``emb`` times the
    targets' embedding (Press and Wolf, EACL 2017).

    A subclass gives :meth:`states` for whole sentences, and :meth:`begin` and :meth:`advance` to write one.

    Args:
        vocabularies: of the input and of the targets.
        width: D, of embeddings and states.
        dropout: share of the values left out in training.
    """

    subwords: Tensor

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.target = embedding(vocabularies[1].size, width)
        self.dropout = nn.Dropout(dropout)
        digests = "".join(vocabulary.digest for vocabulary in vocabularies)
        self.register_buffer(KEY, torch.tensor(list(bytes.fromhex(digests)), dtype=torch.uint8))

    # What subclasses say

    def states(self, read: Tensor, prefix: Tensor) -> Tensor:
        """(N, T, D) states before each symbol of the targets.

        Args:
            read: (N, S) symbols of the input, padded at the end.
            prefix: (N, T) the targets one place later, padded at the end.
        """
        raise NotImplementedError

    def begin(self, read: Tensor) -> Any:
        """What is known before the first symbol: tensors of N rows, nested in tuples."""
        raise NotImplementedError

    def advance(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        """(N, D) states behind one more symbol of each row, and what is known then.

        Args:
            symbols: (N,) the last symbol of each row.
        """
        raise NotImplementedError

    # The network

    def forward(self, batch: Batch) -> Out:
        assert batch.counts is not None
        wide = real(batch.counts, int(batch.counts.max()))
        prefix = batch.x[PREFIX][:, : wide.shape[1]]
        read = cut(batch.x[self.input])
        if self.autocast is None:
            return self._answered(read, prefix, wide)
        with torch.autocast(read.device.type, self.autocast):
            return self._answered(read, prefix, wide).float()

    def _answered(self, read: Tensor, prefix: Tensor, wide: Tensor) -> Out:
        emb = self.states(read, prefix)[wide]
        return Out(self.scores(emb), emb=emb)

    def scores(self, states: Tensor) -> Tensor:
        """(..., V) scores of symbols."""
        return states @ self.target.weight.T

    def generate(
        self, batch: Batch, longest: int, beam: int = 1, rng: torch.Generator | None = None
    ) -> list[list[int]]:
        if beam == 1:
            return self._written(cut(batch.x[self.input]), longest, rng)
        return [found[0] for found in self.n_best(batch, longest, beam)]

    def _next(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        """(N, V) log-probabilities of the next symbol, minus infinity of those never written."""
        states, known = self.advance(symbols, known)
        scores = self.scores(states).float()
        scores[:, NEVER] = -torch.inf
        return scores.log_softmax(1), known

    def _written(self, read: Tensor, longest: int, rng: torch.Generator | None) -> list[list[int]]:
        """The likeliest symbol at each place, or drawn ones; rows that have ended are no longer followed."""
        known = self.begin(read)
        row = torch.arange(len(read), device=read.device)
        last = torch.full_like(row, BOS)
        found = torch.full((len(read), longest), PAD, device=read.device)
        for place in range(longest):
            chances, known = self._next(last, known)
            if rng is None:
                last = chances.argmax(1)
            else:
                last = torch.multinomial(chances.exp(), 1, generator=rng).squeeze(1)
            found[row, place] = last
            going = (last != EOS).nonzero().squeeze(1)
            if len(going) < len(row):
                row, last, known = row[going], last[going], picked(known, going)
            if not len(row):
                break
        return [_ended(symbols) for symbols in found.tolist()]

    def n_best(self, batch: Batch, longest: int, beam: int) -> list[list[list[int]]]:
        """By likelihood over length; an ended sentence keeps its place and its likelihood while others go on."""
        read = cut(batch.x[self.input])
        n, device = len(read), read.device
        known = picked(self.begin(read), torch.arange(n, device=device).repeat_interleave(beam))
        last = torch.full((n * beam,), BOS, device=device)
        total = torch.full((n, beam), -torch.inf, device=device)
        total[:, 0] = 0.0
        found = torch.full((n * beam, longest), PAD, device=device)
        lengths = torch.zeros(n, beam, dtype=torch.long, device=device)
        ended = torch.zeros(n, beam, dtype=torch.bool, device=device)
        corner = torch.arange(n, device=device)[:, None] * beam
        for place in range(longest):
            chances, known = self._next(last, known)
            chances = chances.view(n, beam, -1).masked_fill(ended[..., None], -torch.inf)
            chances[..., PAD] = chances[..., PAD].masked_fill(ended, 0.0)
            best = (total[..., None] + chances).flatten(1).topk(beam, dim=1)
            total, symbol = best.values, best.indices % chances.shape[2]
            origin = corner + best.indices // chances.shape[2]
            known = picked(known, origin.flatten())
            found = found[origin.flatten()]
            found[:, place] = symbol.flatten()
            ended, lengths = ended.flatten()[origin], lengths.flatten()[origin]
            lengths = lengths + ~ended
            ended = ended | (symbol == EOS)
            last = symbol.flatten()
            if bool(ended.all()):
                break
        order = (total / lengths.clamp_min(1)).argsort(dim=1, descending=True, stable=True) + corner
        sentences = [_ended(symbols) for symbols in found[order.flatten()].tolist()]
        return [sentences[row * beam : (row + 1) * beam] for row in range(n)]

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        given = state.get(prefix + KEY)
        if given is not None and not torch.equal(given.cpu(), self.subwords.cpu()):
            rest[-1].append("they were trained on another vocabulary than this task's")
        super()._load_from_state_dict(state, prefix, *rest)


def embedding(size: int, width: int) -> nn.Embedding:
    """Of symbols; padding is zero."""
    table = nn.Embedding(size, width, padding_idx=PAD)
    nn.init.normal_(table.weight, std=width**-0.5)
    with torch.no_grad():
        table.weight[PAD] = 0.0
    return table


def sines(length: int, width: int, device: torch.device) -> Tensor:
    """(T, D) of places (Vaswani et al., NeurIPS 2017, section 3.5), sines first."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10000.0) / width))
    angle = torch.arange(length, device=device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width]


def picked(known: Any, rows: Tensor) -> Any:
    """Some rows of nested tuples of tensors."""
    if isinstance(known, Tensor):
        return known[rows]
    return tuple(picked(one, rows) for one in known)


def share(percent: int | None, usual: float) -> float:
    """Dropout of a net's name, in percent."""
    return usual if percent is None else percent / 100


def _ended(symbols: Sequence[int]) -> list[int]:
    """Without the end and what is behind it."""
    found = list(symbols)
    for place, symbol in enumerate(found):
        if symbol in (EOS, PAD):
            return found[:place]
    return found
