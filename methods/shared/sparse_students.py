"""Convolutional students that learn what hidden patches hold, by a sparse encoder and SparK's decoder.

What is deployed is the student itself: the dense network with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Batch, Group, Hide, Method, Network, NotApplicable, Out, Stage, Views, grown
from kdbench.methods.shared.queues import once
from kdbench.methods.shared.reached import reached
from kdbench.models.around import Around
from kdbench.models.sparse import require_sparse, sparsely
from kdbench.models.unet import Decoder, by_halves


class SparseStudent(Method):
    """A student whose encoder sees part of each picture; a subclass says what the decoder behind predicts.

    ``hp`` has ``hide``, the share of hidden patches, and ``width``, channels of the decoder's coarsest map.
    """

    def decodes(self, outputs: int, finest: int) -> None:
        """Makes the decoder, which gives maps of ``outputs`` channels, ``finest`` pixels to a place.

        Raises:
            NotApplicable: the student's maps are no halves of the picture, or none is coarser than that.
        """
        self.side = self.pictures.shape[2]
        try:
            require_sparse(self.encoder)
            maps = by_halves(self.task.probe(self.student).maps, self.side)
        except UserError as error:
            raise NotApplicable(str(error)) from error
        self.patch = 2 ** len(maps)
        blocks = (self.patch // finest).bit_length() - 1
        if blocks < 1 or self.patch != finest * 2**blocks:  # without a block nothing seen reaches what is hidden
            raise NotApplicable(
                f"a place of the student's coarsest map is {self.patch} pixels wide, and is to be 2, 4, 8 ... "
                f"times the {finest} of what is predicted"
            )
        channels = [0 if one is None else one.shape[1] for one in maps]
        self.decoder = Decoder(channels, self.hp.width, outputs, blocks)

    @property
    def pictures(self) -> Tensor:
        """(2, C, H, W) two pictures as the student reads them."""
        two = self.task.rows(torch.arange(2, device=self.task.device).remainder(self.task.n_train))
        return self.task.wrap(two).x[self.student.input]

    @property
    def encoder(self) -> Network:
        """The student without what stands around it in training."""
        return self.student.body if isinstance(self.student, Around) else self.student

    def decoded(self, batch: Batch) -> Tensor:
        """(N, outputs, H, W) what the decoder says of pictures of which the encoder sees part."""
        visible, x = self.visible(batch), batch.x[self.student.input]
        with sparsely(self.encoder, visible):
            out = self.encoder.encode(x * grown(visible, *x.shape[2:]))
        found: Tensor = self.decoder(by_halves(out.maps, self.side), visible)
        return found

    @staticmethod
    def visible(batch: Batch) -> Tensor:
        """(N, 1, h, w) bool."""
        assert batch.visible is not None
        return batch.visible

    def groups(self) -> list[Group]:
        """The encoder up to its maps, and the decoder; a projection head stays as it is."""
        rows = self.task.rows(torch.zeros(2, dtype=torch.int64, device=self.task.device))
        own = reached(self.student, self.task.wrap(rows), _maps)
        return [Group("student", [*own, *self.decoder.parameters()])]

    def stages(self) -> Iterator[Stage]:
        hide = Hide(self.patch, self.hp.hide)
        view = Views(1, once, input=self.student.input, hide=hide)
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs, views=view)


def _maps(out: Out) -> Tensor:
    maps: Sequence[Tensor] = out.maps
    return torch.stack([one.sum() for one in maps])
