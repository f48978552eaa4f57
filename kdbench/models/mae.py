"""Vision transformers that learn from hidden patches: masked autoencoders (He et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Out, grown, patched, spread
from kdbench.models.around import Around, headless
from kdbench.models.vit import PARTS, Block, ViT, initialise, places

HEAD = 32
"""Numbers of a decoder's head, as in MAE's decoder of width 512 and 16 heads."""


class MaeNet(Around):
    """A vision transformer that says what hidden patches hold; where none is hidden it is its body.

    The body sees the visible patches alone; a small decoder gets its tokens and a trained one in each hidden place.
    ``logits`` are absent, for training sees no classes.

    Args:
        body: the transformer.
        channels: of the picture.
        width, depth: of the decoder's blocks.

    Raises:
        UserError: a width that heads or places do not divide.
    """

    def __init__(self, body: ViT, channels: int, width: int, depth: int) -> None:
        super().__init__()
        heads = max(1, width // HEAD)
        if width % heads or width % PARTS:
            raise UserError(f"a decoder's width is a multiple of {PARTS} and of its {heads} heads; it is {width}")
        self.embed = nn.Linear(body.fc.in_features, width)
        self.body: ViT = headless(body)
        self.blank = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("places", places(width, *body.grid), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final = nn.LayerNorm(width, eps=1e-6)
        self.pred = nn.Linear(width, channels * body.patch**2)
        for part in (self.embed, self.blocks, self.pred):
            part.apply(initialise)

    places: Tensor

    def encode(self, x: Tensor) -> Out:
        return self.body.encode(x)._replace(logits=None)

    def encode_visible(self, x: Tensor, visible: Tensor, seen: int) -> Out:
        if (hidden := x.shape[2] // visible.shape[2]) % self.body.patch:
            raise UserError(
                f"the net's patches are of {self.body.patch} pixels, and patches of {hidden} are hidden; set "
                f"train.loss.patch to {self.body.patch}, or a multiple"
            )
        patches = visible[0].numel()
        visible = grown(visible, *self.body.grid)
        out = self.body.seen(x, visible, seen * visible[0].numel() // patches)
        if self.sparing and "patches" not in self.asked:
            return out
        tokens = self.embed(self.body.final(out.tokens[-1]))
        rows = torch.cat([tokens[:, :1], spread(tokens[:, 1:], visible, self.blank)], dim=1) + self.places
        for block in self.blocks:
            rows, _ = block(rows)
        predicted = self.pred(self.final(rows))[:, 1:]
        return out._replace(patches=(predicted, patched(x, self.body.patch)))


def build(input_shape: tuple[int, ...], outputs: int, net: str, width: int, layers: int) -> MaeNet:
    """A :class:`MaeNet`.

    Args:
        outputs: not read, for training sees no classes.
        net: the name of the body.
        layers: blocks of the decoder.

    Raises:
        UserError: a body that is no vision transformer of kdbench's.
    """
    body = models.build(net, input_shape, 2)
    if not isinstance(body, ViT):
        raise UserError(
            f"net {net!r} cannot leave patches out; behind 'mae' stands vit_w<width>d<depth>h<heads>p<patch>"
        )
    return MaeNet(body, input_shape[0], width, layers)
