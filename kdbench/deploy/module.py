"""A trained network with all that stands between raw rows and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.contract import Batch
from kdbench.data.feed.dataset import Derived, Transform
from kdbench.deploy import rows
from kdbench.deploy.about import About


class Deployed(nn.Module):
    """Raw rows in, answers in the task's own unit out.

    Args:
        net: from a batch to its :class:`kdbench.contract.Out`.
        about: what is known of it.
        derived: what makes its input from the raw rows, where it is not theirs.

    Attributes:
        classes: names in the order of the scores; empty for a regression.
    """

    def __init__(self, net: nn.Module, about: About, derived: Derived | None = None) -> None:
        super().__init__()
        self.net, self.about = net, about
        self.classes = about.answer.classes
        self._derived = derived
        self._transform = Transform(about.normalised.mean, about.normalised.std)
        self.eval().requires_grad_(False)

    def read(self, files: Sequence[str | Path]) -> Tensor:
        """Pictures, videos or arrays as raw rows: (N, ...), as ``about.raw`` says.

        Raises:
            UserError: a file that is not what the network reads.
        """
        return rows.read(self.about.raw, [Path(file) for file in files])

    def prepare(self, raw: Tensor) -> Tensor:
        """Raw rows (N, ...) as the layers read them: normalised float32."""
        x = raw if self._derived is None else self._derived.fn(raw, None)
        if self.about.normalised.gaps:
            x = x.masked_fill(x.isnan(), 0.0)
        return self._transform(x)

    def forward(self, raw: Tensor) -> Tensor:
        """(N, C) scores of the classes, or (N,) numbers in the task's unit, of raw rows (N, ...)."""
        x = self.prepare(raw)
        n = x.shape[0]  # len() would fix the size of the batch in an exported graph
        batch = Batch({self.about.normalised.name: x}, x.new_zeros(n), torch.arange(n, device=x.device))
        scores: Tensor = self.net(batch).logits.float()
        answer = self.about.answer
        return scores if answer.range is None else scores * answer.scale + answer.offset
