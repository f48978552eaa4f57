"""What networks of one stack share that go on with a text: the prompt and the text are one sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract.sentences import BOS, PAD, real
from kdbench.models.writer import Writer


class Causal(Writer):
    """A network whose state at a place follows from that place and those before; one vocabulary for both.

    A subclass gives :meth:`run` instead of :meth:`states`.
    """

    def run(self, symbols: Tensor) -> Tensor:
        """(N, L, D) states behind each of (N, L) symbols, padded at the end."""
        raise NotImplementedError

    def states(self, read: Tensor, prefix: Tensor) -> Tensor:
        if not read.shape[1]:
            return self.run(prefix)
        before, width = (read != PAD).sum(1), prefix.shape[1]
        counts = ((prefix != PAD) & (prefix != BOS)).sum(1) + 1
        joined = torch.full((len(read), int((before + counts).max())), PAD, device=read.device)
        joined[real(before, joined.shape[1])] = read[read != PAD]
        behind = real(before + counts, joined.shape[1]) & ~real(before, joined.shape[1])
        joined[behind] = prefix[real(counts, width)]
        place = before[:, None] + torch.arange(width, device=read.device)
        place = place.clamp_max(joined.shape[1] - 1)[..., None].expand(-1, -1, self.width)
        return self.run(joined).gather(1, place)
