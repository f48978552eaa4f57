"""What networks of one stack share that go on with a text: the prompt and the text are one sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Vocabulary
from kdbench.contract.sentences import PAD, real
from kdbench.models.writer import Writer


class Causal(Writer):
    """A network whose state at a place follows from that place and those before; one vocabulary for both.

    A subclass gives :meth:`run` instead of :meth:`states`.

    Raises:
        UserError: prompts and texts have vocabularies of their own.
    """

    def __init__(self, vocabularies: tuple[Vocabulary, Vocabulary], width: int, dropout: float) -> None:
        if vocabularies[0].digest != vocabularies[1].digest:
            raise UserError(
                "a net that goes on with a text reads prompt and text in one vocabulary, and these are two; set "
                "data.options.joint=true, or choose a net that translates"
            )
        super().__init__(vocabularies, width, dropout)

    def run(self, symbols: Tensor) -> Tensor:
        """(N, L, D) states behind each of (N, L) symbols, padded at the end."""
        raise NotImplementedError

    def states(self, read: Tensor, prefix: Tensor) -> Tensor:
        if not read.shape[1]:
            return self.run(prefix)
        together, place = joined(read, prefix)
        return self.run(together).gather(1, place[..., None].expand(-1, -1, self.width))


def joined(read: Tensor, prefix: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) prompts and texts as one sequence, padded at its end, and (N, T) where each symbol of the text stands.

    Args:
        read: (N, S) prompts.
        prefix: (N, T) texts one place later, behind a :data:`BOS`.
    """
    before, width = (read != PAD).sum(1), prefix.shape[1]
    counts = (prefix != PAD).sum(1)
    together = torch.full((len(read), int((before + counts).max())), PAD, device=read.device)
    together[real(before, together.shape[1])] = read[read != PAD]
    behind = real(before + counts, together.shape[1]) & ~real(before, together.shape[1])
    together[behind] = prefix[real(counts, width)]
    place = before[:, None] + torch.arange(width, device=read.device)
    return together, place.clamp_max(together.shape[1] - 1)
