"""Transformer encoder and decoder (Vaswani et al., NeurIPS 2017), layer norms before each part."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import Vocabulary
from kdbench.contract.sentences import PAD
from kdbench.models.writer import Writer, embedding, share, sines

HEAD = 32
"""Width of an attention head, at most."""
Pair = tuple[Tensor, Tensor]
"""Keys and values, each (N, heads, S, D / heads)."""


def heads_of(width: int) -> int:
    """As many as divide the width, none wider than :data:`HEAD`."""
    return next(count for count in range(max(1, math.ceil(width / HEAD)), width + 1) if width % count == 0)


class Attention(nn.Module):
    """Attention of several heads; keys and values come made, so that they are made once for a sentence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.ask, self.tell, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def pair(self, x: Tensor) -> Pair:
        """Keys and values of (N, S, D)."""
        keys, values = (self._split(part) for part in self.tell(x).chunk(2, 2))
        return keys, values

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, pair: Pair, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(N, T, D).

        Args:
            mask: (N, 1, 1, S) bool, True where something stands.
            causal: places see those before them alone.
        """
        seen = F.scaled_dot_product_attention(self._split(self.ask(x)), *pair, attn_mask=mask, is_causal=causal)
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention to what was written, to what was read where there is something, and two linear layers.

    Args:
        reads: whether it attends to another sentence.
    """

    def __init__(self, width: int, dropout: float, reads: bool) -> None:
        super().__init__()
        self.own, self.own_norm = Attention(width), nn.LayerNorm(width)
        self.other = Attention(width) if reads else None
        self.other_norm = nn.LayerNorm(width) if reads else None
        self.wide = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout))
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        before: Pair | None = None,
        memory: Pair | None = None,
        blank: Tensor | None = None,
    ) -> tuple[Tensor, Pair]:
        """(N, T, D), and keys and values of all that was written.

        Args:
            before: those of what was written before ``x``.
            memory, blank: keys and values of what is read, and its mask.
        """
        normed = self.own_norm(x)
        pair = self.own.pair(normed)
        if before is not None:
            pair = (torch.cat([before[0], pair[0]], 2), torch.cat([before[1], pair[1]], 2))
        x = x + self.dropout(self.own(normed, pair, mask, causal))
        if self.other is not None and self.other_norm is not None:
            assert memory is not None
            x = x + self.dropout(self.other(self.other_norm(x), memory, blank))
        return x + self.dropout(self.narrow(self.wide(x))), pair


class Transformer(Writer):
    """As many blocks that read as blocks that write.

    Args:
        vocabularies, width, dropout: as of :class:`Writer`.
        layers: blocks of each.
    """

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, layers: int, dropout: float) -> None:
        super().__init__(vocabularies, width, dropout)
        self.source = embedding(vocabularies[0].size, width)
        self.encoder = nn.ModuleList(Block(width, dropout, reads=False) for _ in range(layers))
        self.decoder = nn.ModuleList(Block(width, dropout, reads=True) for _ in range(layers))
        self.encoded, self.decoded = nn.LayerNorm(width), nn.LayerNorm(width)

    def _placed(self, table: nn.Embedding, symbols: Tensor, begin: int = 0) -> Tensor:
        """Embedded symbols, each with its place; the first stands at ``begin``."""
        end = begin + symbols.shape[1]
        x = table(symbols) * math.sqrt(self.width)
        return self.dropout(x + sines(end, self.width, symbols.device)[begin:].to(x))

    def _memory(self, read: Tensor) -> tuple[tuple[Pair, ...], Tensor]:
        """Keys and values of what is read, of each block that writes, and (N, 1, 1, S) where something stands."""
        there = (read != PAD)[:, None, None]
        x = self._placed(self.source, read)
        for block in self.encoder:
            x, _ = block(x, there)
        x = self.encoded(x)
        others: list[Any] = [block.other for block in self.decoder]
        return tuple(other.pair(x) for other in others), there

    def states(self, read: Tensor, prefix: Tensor) -> Tensor:
        memory, there = self._memory(read)
        x = self._placed(self.target, prefix)
        for block, pair in zip(self.decoder, memory, strict=True):
            x, _ = block(x, causal=True, memory=pair, blank=there)
        return self.decoded(x)

    def begin(self, read: Tensor) -> Any:
        """Keys and values of what is read, where it stands, and of nothing that was written."""
        return (*self._memory(read), ())

    def advance(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        memory, there, written = known
        x = self._placed(self.target, symbols[:, None], written[0][0].shape[2] if written else 0)
        pairs = []
        for number, (block, pair) in enumerate(zip(self.decoder, memory, strict=True)):
            before = written[number] if written else None
            x, made = block(x, before=before, memory=pair, blank=there)
            pairs.append(made)
        return self.decoded(x)[:, 0], (memory, there, tuple(pairs))


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    width: int,
    vocabularies: tuple[Vocabulary, Vocabulary],
    layers: int = 2,
    dropout: int | None = None,
) -> Transformer:
    """A :class:`Transformer`; ``dropout`` in percent, 10 unless said."""
    return Transformer(vocabularies, width, layers, share(dropout, 0.1))
