"""A trained network with all that stands between raw rows and answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.contract import Batch
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.inputs import ImageInput, PictureInput
from kdbench.data.feed.dataset import Derived, Transform
from kdbench.deploy import rows
from kdbench.deploy.about import About
from kdbench.kinds.base import Scaling


class Deployed(nn.Module):
    """Raw rows in, answers in the task's own unit out.

    Args:
        net: from a batch to its :class:`kdbench.contract.Out`.
        about: what is known of it.
        derived: what makes its input from the raw rows, where it is not theirs.

    Attributes:
        classes: names in the order of the scores; empty for a regression, embeddings and codes.
    """

    def __init__(self, net: nn.Module, about: About, derived: Derived | None = None) -> None:
        super().__init__()
        self.net, self.about = net, about
        self.classes = about.answer.classes if self.kind.vector is None else ()
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

    @property
    def kind(self) -> kinds.Kind:
        """Of its task, under the task's rules."""
        return kinds.kind(self.about.kind).ruled(self.about.rules)

    def found(self, raw: Tensor, came: Tensor | None = None) -> Any:
        """What the network finds on pictures, by the rules of its task, as the kind has it: boxes, scores, labels, the
        number of each picture's (``counts``), and masks; or (N, H, W) classes.

        Args:
            raw: (N, C, H, W).
            came: (N, 2) height and width of each as it came, in whose pixels boxes are; (H, W) where it is None.

        Raises:
            UserError: answers are no places in pictures.
        """
        kind, size = self.kind, (raw.shape[-2], raw.shape[-1])
        if not kind.placed:
            raise UserError(f"{self.about.words}: answers of a {self.about.kind} task are no places in pictures")
        came = torch.tensor([size] * len(raw), dtype=torch.float32) if came is None else came
        return self.answered(raw, kind.blank(came, self._content(came, size), size).to(raw.device), looked=True)

    def _content(self, came: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, 2) height and width of pictures within rows of a size, padding left out."""
        form = self.about.raw.form
        if not isinstance(form, ImageInput | PictureInput):
            return torch.tensor([size] * len(came), dtype=torch.float32)
        fit = Fit.of(form)
        return torch.tensor([fit.content((int(h), int(w))) for h, w in came.tolist()], dtype=torch.float32)

    def answered(self, raw: Tensor, y: Any, looked: bool = False) -> Any:
        """What the kind's metrics read of the network's answers to raw rows with targets, or what is drawn of them."""
        x = self.prepare(raw)
        batch = Batch({self.about.normalised.name: x}, y, torch.arange(len(x), device=x.device))
        scaling = Scaling(self.about.answer.offset, self.about.answer.scale)
        return (self.kind.looked if looked else self.kind.answer)(self.net(batch), batch, scaling)

    def forward(self, raw: Tensor) -> Any:
        """(N, C) scores of the classes, or (N,) numbers in the task's unit, of raw rows (N, ...).

        Of an encoder (N, D) embeddings; of a hashing net (N, L) scores whose signs are the bits; of a detector what it
        finds, as :meth:`found` gives it.
        """
        if self.kind.unwritten is not None:
            return self.found(raw)
        x = self.prepare(raw)
        n = x.shape[0]  # len() would fix the size of the batch in an exported graph
        batch = Batch({self.about.normalised.name: x}, x.new_zeros(n), torch.arange(n, device=x.device))
        given: Tensor = getattr(self.net(batch), self.kind.gives).float()
        answer = self.about.answer
        return given if answer.range is None else given * answer.scale + answer.offset
