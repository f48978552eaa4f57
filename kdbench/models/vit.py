"""Plain vision transformers for small pictures (Dosovitskiy et al., ICLR 2021), in MAE's form (He et al., CVPR 2022).

N pictures, L patches, T = 1 + L tokens (the class token first), D numbers of a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import Network, Out, kept, spread
from kdbench.models.base import scores

PARTS = 4
"""Of a token's place: sine and cosine of row and column."""


def places(width: int, rows: int, columns: int) -> Tensor:
    """(1, 1 + L, D) sines and cosines of rows and columns at D / 4 frequencies, as MAE's; 0 of the class token."""
    pace = 10_000 ** -(torch.arange(width // PARTS, dtype=torch.float64) / (width // PARTS))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [at.flatten()[:, None] * pace for at in (column, row)]
    found = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([found.new_zeros(1, width), found])[None].float()


class Attention(nn.Module):
    """Self-attention; ``qkv`` has the rows of queries, keys and values in this order, each by heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, T, D) tokens (N, T, D), and (N, 3, heads, T, D / heads) queries, keys and values."""
        qkv = by_heads(self.qkv(x), self.heads)
        q, k, v = qkv.unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2)), qkv


def by_heads(qkv: Tensor, heads: int) -> Tensor:
    """(N, T, 3 D) as (N, 3, heads, T, D / heads)."""
    return qkv.unflatten(2, (3, heads, -1)).permute(0, 2, 3, 1, 4)


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each behind its norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of (N, T, D) tokens (N, T, D), and queries, keys and values."""
        mixed, qkv = self.attn(self.norm1(x))
        x = x + mixed
        return x + self.mlp(self.norm2(x)), qkv


class ViT(Network):
    """A vision transformer of fixed places; ``emb`` is the mean of the patches' tokens behind the last norm.

    ``maps`` is one, the patches' tokens of the last block, 0 where a patch is hidden.

    Args:
        input_shape: (channels, height, width).
        outputs: classes, or 1 for a regression.
        width, depth, heads: of the blocks.
        patch: pixels of a patch's side.

    Raises:
        UserError: patches that do not divide the picture, or a width that heads or places do not divide.
    """

    def __init__(
        self, input_shape: tuple[int, ...], outputs: int, width: int, depth: int, heads: int, patch: int
    ) -> None:
        super().__init__()
        if any(side % patch for side in input_shape[1:]):
            raise UserError(
                f"a vision transformer of patches of {patch} pixels cannot read inputs {input_shape}: they do not "
                "divide height and width; change the number behind 'p'"
            )
        if width % heads or width % PARTS:
            raise UserError(
                f"a vision transformer's width is a multiple of {PARTS} and of its {heads} heads; it is {width}"
            )
        self.patch, self.heads, self.grid = patch, heads, (input_shape[1] // patch, input_shape[2] // patch)
        self.patch_embed = nn.Conv2d(input_shape[0], width, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.register_buffer("pos_embed", places(width, *self.grid), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final = nn.LayerNorm(width, eps=1e-6)
        self.fc = nn.Linear(width, outputs)
        self.apply(initialise)

    pos_embed: Tensor

    def encode(self, x: Tensor) -> Out:
        out = self.seen(x, None)
        return out._replace(logits=scores(self.fc, out.emb))

    def seen(self, x: Tensor, visible: Tensor | None, count: int = 0) -> Out:
        """What the blocks give of the patches that are seen, or of all: ``emb``, ``maps``, ``tokens`` and ``qkv``.

        Args:
            count: how many of each row are seen, where ``visible`` says which.
        """
        rows = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        if visible is not None:
            rows = kept(rows, visible, count)
        first = self.cls_token + self.pos_embed[:, :1]
        at = torch.cat([first.expand(rows.shape[0], -1, -1).to(rows), rows], dim=1)
        tokens, qkv = [], []
        for block in self.blocks:
            at, own = block(at)
            tokens.append(at)
            qkv.append(own)
        emb = self.final(at)[:, 1:].mean(dim=1)
        last = at[:, 1:] if visible is None else spread(at[:, 1:], visible, at.new_zeros(at.shape[2]))
        map_ = last.transpose(1, 2).unflatten(2, self.grid)
        return Out(None, (map_,), emb=emb, tokens=tuple(tokens), qkv=tuple(qkv))

    @property
    def classifier(self) -> nn.Linear:
        return self.fc


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and biases of 0, as in MAE's code."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))


def build(input_shape: tuple[int, ...], outputs: int, width: int, depth: int, heads: int, patch: int) -> ViT:
    """A :class:`ViT` for (channels, height, width) inputs."""
    return ViT(input_shape, outputs, width, depth, heads, patch)
