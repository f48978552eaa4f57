"""A Transformer that goes on with a text (Radford et al. 2018), layer norms before each part."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Vocabulary
from kdbench.contract.sentences import PAD
from kdbench.models.causal import Causal
from kdbench.models.transformer import Block
from kdbench.models.writer import share, sines


class GPT(Causal):
    """Blocks that see the places before them.

    Args:
        vocabularies, width, dropout: as of :class:`Writer`.
        layers: blocks.
    """

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, layers: int, dropout: float) -> None:
        super().__init__(vocabularies, width, dropout)
        self.blocks = nn.ModuleList(Block(width, dropout, reads=False) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)

    def _placed(self, symbols: Tensor, places: Tensor) -> Tensor:
        """Embedded symbols, each with its place."""
        x = self.target(symbols) * math.sqrt(self.width)
        return self.dropout(x + sines(int(places.max()) + 1, self.width, symbols.device)[places].to(x))

    def run(self, symbols: Tensor) -> Tensor:
        x = self._placed(symbols, torch.arange(symbols.shape[1], device=symbols.device))
        for block in self.blocks:
            x, _ = block(x, causal=True)
        return self.norm_out(x)

    def begin(self, read: Tensor) -> Any:
        """(N,) symbols so far, (N, S) where they stand, and keys and values of each block."""
        there = read != PAD
        count = there.sum(1)
        if not read.shape[1]:
            return count, there, ()
        x = self._placed(read, torch.arange(read.shape[1], device=read.device))
        pairs = []
        for block in self.blocks:
            x, pair = block(x, causal=True)
            pairs.append(pair)
        return count, there, tuple(pairs)

    def advance(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        count, there, before = known
        there = torch.cat([there, there.new_ones(len(symbols), 1)], 1)
        x = self._placed(symbols[:, None], count[:, None])
        pairs = []
        for number, block in enumerate(self.blocks):
            x, pair = block(x, there[:, None, None], before=before[number] if before else None)
            pairs.append(pair)
        return self.norm_out(x)[:, 0], (count + 1, there, tuple(pairs))


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    width: int,
    vocabularies: tuple[Vocabulary, Vocabulary],
    layers: int = 2,
    dropout: int | None = None,
) -> GPT:
    """A :class:`GPT`; ``dropout`` in percent, 10 unless said."""
    return GPT(vocabularies, width, layers, share(dropout, 0.1))
