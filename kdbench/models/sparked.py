"""Convolutional nets that learn from hidden patches, with SparK's decoder behind (Tian et al., ICLR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Network, Out, grown, patched
from kdbench.models.around import Around, headless
from kdbench.models.sparse import require_sparse, sparsely
from kdbench.models.unet import Decoder, by_halves


class SparkNet(Around):
    """A net that says what hidden patches hold; where none is hidden it is its body.

    A patch is what becomes one place of the body's coarsest map; one that is hidden may be several.
    ``logits`` are absent, for training sees no classes.

    Args:
        body: a net of the zoo.
        input_shape: (channels, height, width).
        width: channels of the decoder's coarsest map.
    """

    def __init__(self, body: Network, input_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.body, self.side = headless(body), input_shape[1]
        require_sparse(body)
        mode = body.training
        with torch.no_grad():  # sizes alone
            maps = by_halves(body.eval().encode(torch.zeros(1, *input_shape)).maps, self.side)
        body.train(mode)
        self.patch = 2 ** len(maps)
        channels = [0 if one is None else one.shape[1] for one in maps]
        self.decoder = Decoder(channels, width, input_shape[0], len(maps))

    def encode(self, x: Tensor) -> Out:
        return self.body.encode(x)._replace(logits=None)

    def encode_visible(self, x: Tensor, visible: Tensor, seen: int) -> Out:
        if (hidden := x.shape[2] // visible.shape[2]) % self.patch:
            raise UserError(
                f"a place of the net's coarsest map is {self.patch} pixels wide, and patches of {hidden} are hidden; "
                f"set train.loss.patch to {self.patch}, or a multiple"
            )
        with sparsely(self.body, visible):
            out = self.body.encode(x * grown(visible, *x.shape[2:]))
        pixels = self.decoder(by_halves(out.maps, self.side), visible)
        return out._replace(logits=None, patches=(patched(pixels, self.patch), patched(x, self.patch)))


def build(input_shape: tuple[int, ...], outputs: int, net: str, width: int) -> SparkNet:
    """A :class:`SparkNet`.

    Args:
        outputs: not read, for training sees no classes.
        net: the name of the body.

    Raises:
        UserError: a body whose maps are no halves of the picture, or a width that cannot be halved as often.
    """
    return SparkNet(models.build(net, input_shape, 2), input_shape, width)
