"""A recurrent language model (Mikolov et al., Interspeech 2010, with gated units)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from kdbench.contract import Vocabulary
from kdbench.contract.sentences import PAD
from kdbench.models.causal import Causal
from kdbench.models.writer import share


class RecurrentLM(Causal):
    """A GRU over the prompt and the text.

    Args:
        vocabularies, width, dropout: as of :class:`Writer`.
        layers: of the GRU.
    """

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, layers: int, dropout: float) -> None:
        super().__init__(vocabularies, width, dropout)
        self.stack = nn.GRU(width, width, layers, batch_first=True)
        self.mix = nn.Linear(width, width)

    def _behind(self, states: Tensor) -> Tensor:
        return self.dropout(self.mix(states).tanh())

    def run(self, symbols: Tensor) -> Tensor:
        return self._behind(self.stack(self.dropout(self.target(symbols)))[0])

    def begin(self, read: Tensor) -> Any:
        """(N, layers, D) state behind the prompt."""
        if not read.shape[1]:
            return self.target.weight.new_zeros(len(read), self.stack.num_layers, self.width)
        lengths = (read != PAD).sum(1).cpu()
        packed = pack_padded_sequence(self.dropout(self.target(read)), lengths, batch_first=True, enforce_sorted=False)
        return self.stack(packed)[1].transpose(0, 1)

    def advance(self, symbols: Tensor, known: Any) -> tuple[Tensor, Any]:
        states, state = self.stack(self.dropout(self.target(symbols[:, None])), known.transpose(0, 1).contiguous())
        return self._behind(states)[:, 0], state.transpose(0, 1)


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    width: int,
    vocabularies: tuple[Vocabulary, Vocabulary],
    layers: int = 1,
    dropout: int | None = None,
) -> RecurrentLM:
    """A :class:`RecurrentLM`; ``dropout`` in percent, 10 unless said."""
    return RecurrentLM(vocabularies, width, layers, share(dropout, 0.1))
