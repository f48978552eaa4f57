"""A light decoder of maps of which patches are hidden (SparK: Tian et al., ICLR 2023, section 3.3).

Maps come from the coarsest to the finest, each twice as high and wide as the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import grown
from kdbench.models.sparse import normalised


class Densify(nn.Module):
    """A map of ``inputs`` channels, hidden places filled with one trained vector, as one of ``outputs``.

    Args:
        kernel: of the convolution behind; an identity where that has a kernel of 1 and nothing to change.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.token = nn.Parameter(torch.zeros(1, inputs, 1, 1))
        nn.init.trunc_normal_(self.token, std=0.02)
        same = inputs == outputs and kernel == 1
        self.proj: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        seen = grown(visible, *x.shape[2:])
        dense: Tensor = self.proj(normalised(self.norm, visible, x).where(seen, self.token))
        return dense


class UpBlock(nn.Module):
    """Twice the size, half the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu6(self.bn1(self.conv1(self.up(x))))
        outer: Tensor = self.bn2(self.conv2(inner))
        return outer


class Decoder(nn.Module):
    """Maps to (N, outputs, H, W), ``blocks`` times twice as large as the coarsest.

    Args:
        channels: of the maps; 0 where the net has none of that size. As many count as there are blocks, at least one.
        width: channels the coarsest is brought to.

    Raises:
        UserError: the width cannot be halved once a block.
    """

    def __init__(self, channels: Sequence[int], width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        if width % 2**blocks:
            raise UserError(
                f"a decoder of {blocks} blocks halves its width {width} as often; choose a multiple of {2**blocks}"
            )
        sizes = [width // 2**place for place in range(blocks + 1)]
        self.densify = nn.ModuleDict(
            {
                str(place): Densify(inputs, size, 1 if place == 0 else 3)
                for place, (inputs, size) in enumerate(zip(channels[: max(1, blocks)], sizes, strict=False))
                if inputs
            }
        )
        self.blocks = nn.ModuleList(UpBlock(size) for size in sizes[:-1])
        self.proj = nn.Conv2d(sizes[-1], outputs, 1)

    def forward(self, maps: Sequence[Tensor | None], visible: Tensor) -> Tensor:
        first = maps[0]
        assert first is not None
        x = self.densify["0"](first, visible)
        for place, block in enumerate(self.blocks):
            if place and str(place) in self.densify:
                x = x + self.densify[str(place)](maps[place], visible)
            x = block(x)
        found: Tensor = self.proj(x)
        return found


def by_halves(maps: Sequence[Tensor], side: int) -> list[Tensor | None]:
    """Of a net's maps, the coarsest first, the last of each size, and None where a size between has none.

    Args:
        side: rows of the picture; sizes end at half of them.

    Raises:
        UserError: the net has no map that is smaller than the picture, or sizes that are no halves of it.
    """
    found = {side // height: one for one in maps if one.ndim == 4 and side % (height := one.shape[2]) == 0}
    coarsest = max(found, default=1)
    if coarsest < 2 or coarsest & (coarsest - 1) or any(one.ndim != 4 or side % one.shape[2] for one in maps):
        sizes = ", ".join(" x ".join(map(str, one.shape[2:])) for one in maps) or "none"
        raise UserError(
            f"maps of a picture of {side} rows are to be halves, quarters ... of it; the net's are {sizes}: choose "
            "another net or size"
        )
    return [found.get(coarsest // 2**place) for place in range(coarsest.bit_length() - 1)]
