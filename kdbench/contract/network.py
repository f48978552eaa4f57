"""A network, as methods see one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from kdbench.contract.batch import Batch
from kdbench.contract.errors import NotApplicable
from kdbench.contract.out import Out

HeadFrom = Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
"""Class features and box features of each level to logits and raw regression of each level."""


class Network(nn.Module):
    """A network of the zoo: reads its own input of a batch and returns :class:`Out`.

    A subclass implements :meth:`encode`. ``input`` is set by the task (``pair.student.input``), so that a
    low-resolution student, a cross-modal teacher and an ordinary pair are one case. ``autocast`` is set by the engine
    (``engine.precision``): the type its forward computes in; what it returns is float32 all the same. ``asked`` is set
    by the engine to what the method names in ``Needs`` of this network, and ``sparing`` where nothing else is read of
    it, so that a network whose parts cost much need not compute the others; most compute everything. ``reduced`` is set
    by the task: of the picture in whose pixels targets are, how many pixels of a side became one of the input's; what a
    network says of places is in pixels of that picture.
    """

    input: str = "image"
    autocast: torch.dtype | None = None
    asked: frozenset[str] = frozenset()
    sparing: bool = False
    reduced: int = 1

    def forward(self, batch: Batch) -> Out:
        """The network's :class:`Out` for the rows of ``batch``."""
        x = batch.x[self.input]
        if self.autocast is None:
            return self._read(x, batch)
        with torch.autocast(x.device.type, self.autocast):
            return self._read(x, batch).float()

    def _read(self, x: Tensor, batch: Batch) -> Out:
        if batch.visible is None:
            return self.encode(x)
        assert batch.seen is not None
        return self.encode_visible(x, batch.visible, batch.seen)

    def encode(self, x: Tensor) -> Out:
        """:class:`Out` for a tensor of normalised inputs."""
        raise NotApplicable(f"{type(self).__name__} has no encoder")

    def encode_visible(self, x: Tensor, visible: Tensor, seen: int) -> Out:
        """:class:`Out` for pictures of which some patches are hidden; a net that knows nothing of that sees them all.

        Args:
            visible, seen: as of a batch.
        """
        return self.encode(x)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from ``emb`` to ``logits``."""
        raise NotApplicable(f"{type(self).__name__} offers no classifier")

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        """Scale and shift, each (C,), of the batch norm whose output is ``preact[stage]``."""
        raise NotApplicable(f"{type(self).__name__} offers no stage norms")

    def tail(self, stage: int) -> nn.Module:
        """A freshly initialised copy of what follows ``maps[stage]``: maps it to :class:`Out`.

        Its ``classifier`` is a linear layer that may be replaced by one of other outputs.
        """
        raise NotApplicable(f"{type(self).__name__} offers no stage tails")

    def extra_tail(self) -> nn.Module:
        """A fresh tail of the last map with one more stage of its kind before the head."""
        raise NotApplicable(f"{type(self).__name__} offers no stage tails")

    def generate(
        self, batch: Batch, longest: int, beam: int = 1, rng: torch.Generator | None = None
    ) -> list[list[int]]:
        """What the network writes for each of the N sentences of a batch, without their ends.

        Args:
            longest: symbols of a sentence at most.
            beam: sentences followed at a time; 1 takes the likeliest symbol at each place.
            rng: each symbol is drawn by its probability instead; of a beam of 1.
        """
        raise NotApplicable(f"{type(self).__name__} writes no sentences")

    def n_best(self, batch: Batch, longest: int, beam: int) -> list[list[list[int]]]:
        """All that a beam found for each sentence, the best first. Args: as of :meth:`generate`."""
        raise NotApplicable(f"{type(self).__name__} writes no sentences")

    @property
    def writes(self) -> bool:
        """Whether :meth:`generate` gives sentences."""
        return type(self).generate is not Network.generate

    def head_from(self, block: int) -> HeadFrom:
        """The head behind block ``block`` of its branches, with its own weights: gradients pass through it.

        It maps class and box features of each level, as ``Dense.taps[block]`` holds them, to logits and raw regression
        as ``Dense.cls`` and ``Dense.box``.
        """
        raise NotApplicable(f"{type(self).__name__} offers no head to enter at a block")

    def roi_head(self, fpn: Sequence[Tensor], proposals: Sequence[Tensor]) -> Tensor:
        """Class logits (R, K + 1) of a detector's second stage, as ``Dense.roi``, on proposals of another network.

        Args:
            fpn: its own pyramid.
            proposals: of each picture (P_n, 4) boxes in pixels of the input; R is their number.
        """
        raise NotApplicable(f"{type(self).__name__} has no second stage that looks at proposals")

    def init_from(self, other: Network, parts: Collection[str]) -> None:
        """Starts from the weights of another network's ``parts``, such as ``neck`` and ``head``.

        Raises:
            NotApplicable: it has no such part, or the other's is of other shapes.
        """
        raise NotApplicable(f"{type(self).__name__} has no parts to take from another network")
