"""Weights that autocast does not cast again: the same bits, with fewer casts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.models import build
from kdbench.models.held import hold_weights


class Casts(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.seen[kwargs["dtype"]] += 1
        return func(*args, **(kwargs or {}))


def answered(net: nn.Module, x: Tensor, dtype: torch.dtype | None) -> tuple[list[Tensor], int]:
    """All tensors that a network returns, and how often something was cast to the type."""
    with torch.no_grad(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None), Casts() as casts:
        out = net.encode(x)  # type: ignore[operator]
    return [out.logits, *out.maps, out.emb], casts.seen[torch.bfloat16]


@pytest.mark.parametrize("name", ["resnet8x4", "vit_w32d1h2p8"])
def test_held_weights_give_the_same_bits_with_fewer_casts(name: str) -> None:
    torch.manual_seed(0)
    net, x = build(name, (3, 16, 16), 5).eval().requires_grad_(False), torch.randn(2, 3, 16, 16)
    keys, own = list(net.state_dict()), {dtype: answered(net, x, dtype) for dtype in (torch.bfloat16, None)}
    layers = [m for m in net.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    assert hold_weights(net, torch.bfloat16) == len(layers) > 5
    assert list(net.state_dict()) == keys
    for dtype, (outs, casts) in own.items():
        now, left = answered(net, x, dtype)
        assert all(torch.equal(one, other) for one, other in zip(outs, now, strict=True))
        if dtype is not None:
            assert casts - left == sum(1 + (layer.bias is not None) for layer in layers)
