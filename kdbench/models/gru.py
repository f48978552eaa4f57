"""Recurrent encoder and decoder with attention (Luong et al., EMNLP 2015, global attention by dot products)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kdbench.contract import Vocabulary
from kdbench.contract.sentences import PAD
from kdbench.models.writer import Writer, embedding, share


class Recurrent(Writer):
    """A GRU that reads in both directions and one that writes; the second starts from the mean of what was read.

    Args:
        vocabularies, width, dropout: as of :class:`Writer`.
        layers: of each GRU.
    """

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, layers: int, dropout: float) -> None:
        super().__init__(vocabularies, width, dropout)
        self.source = embedding(vocabularies[0].size, width)
        self.encoder = nn.GRU(width, width, layers, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * width, width)
        self.decoder = nn.GRU(width, width, layers, batch_first=True)
        self.mix = nn.Linear(2 * width, width)

    def states(self, read: Tensor, prefix: Tensor) -> Tensor:
        memory, blank, state = self.begin(read)
        return self._decoded(prefix, memory, blank, state)[0]

    def begin(self, read: Tensor) -> Any:
        """(N, S, D) memory, (N, S) where it is padding, (N, layers, D) first state."""
        blank = read == PAD
        lengths = (~blank).sum(1)
        packed = pack_padded_sequence(
            self.dropout(self.source(read)), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        memory = self.bridge(pad_packed_sequence(self.encoder(packed)[0], batch_first=True)[0])
        mean = memory.masked_fill(blank[..., None], 0.0).sum(1) / lengths[:, None]
        state = mean.tanh()[:, None].expand(-1, self.decoder.num_layers, -1)
        return memory, blank, state

    def advance(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        memory, blank, state = known
        states, state = self._decoded(symbols[:, None], memory, blank, state)
        return states[:, 0], (memory, blank, state)

    def _decoded(self, prefix: Tensor, memory: Tensor, blank: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.decoder(self.dropout(self.target(prefix)), state.transpose(0, 1).contiguous())
        scores = (states @ memory.transpose(1, 2)).masked_fill(blank[:, None], -torch.inf)
        mixed = self.mix(torch.cat([states, scores.softmax(2) @ memory], 2)).tanh()
        return self.dropout(mixed), last.transpose(0, 1)


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    width: int,
    vocabularies: tuple[Vocabulary, Vocabulary],
    layers: int = 1,
    dropout: int | None = None,
) -> Recurrent:
    """A :class:`Recurrent`; ``dropout`` in percent, 10 unless said."""
    return Recurrent(vocabularies, width, layers, share(dropout, 0.1))
