"""Convolutional nets on pictures of which patches are hidden (SparK: Tian et al., ICLR 2023, section 3.2).

What is hidden stays 0 after every layer, and batch norms count what is seen alone. The weights are those of the net
itself: read without hidden patches, it is the ordinary one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import grown
from kdbench.models.base import GlobalPool

PLACED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
"""Layers whose output has places, some of them hidden."""


UNKNOWN = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention, nn.Conv1d, nn.Conv3d)
"""Layers that are not known to leave hidden places 0."""


def require_sparse(net: nn.Module) -> None:
    """Refuses a net with layers that would fill hidden places.

    Raises:
        UserError: naming one.
    """
    wrong = next((module for module in net.modules() if isinstance(module, UNKNOWN)), None)
    if wrong is not None:
        raise UserError(
            f"{type(net).__name__} cannot leave patches out: {type(wrong).__name__} would fill what is hidden; choose "
            "a convolutional net with batch norms"
        )


@contextmanager
def sparsely(net: nn.Module, visible: Tensor) -> Iterator[None]:
    """Within the block, a net's layers leave what is hidden 0.

    Args:
        visible: (N, 1, h, w) bool, h x w those of the coarsest map or coarser.
    """
    hooks, norms = [], []
    for module in net.modules():
        if isinstance(module, PLACED):
            hooks.append(module.register_forward_hook(partial(_cleared, visible)))
        elif isinstance(module, GlobalPool):
            hooks.append(module.register_forward_hook(partial(_averaged, visible)))
        elif isinstance(module, nn.BatchNorm2d):
            norms.append(module)
            module.forward = partial(normalised, module, visible)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            del norm.__dict__["forward"]


def _cleared(visible: Tensor, module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return out * grown(visible, *out.shape[2:])


def _averaged(visible: Tensor, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """The mean over what is seen, in the place of one in which zeros count."""
    return out * (visible[0].numel() / visible.sum(dim=(1, 2, 3))[:, None])


def normalised(norm: nn.BatchNorm2d, visible: Tensor, x: Tensor) -> Tensor:
    """A batch norm of (N, C, H, W) whose statistics are those of the places that are seen, 0 elsewhere.

    In train mode the running statistics follow, the variance without bias, as those of the norm itself do.
    """
    seen = grown(visible, *x.shape[2:]).to(x)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training or mean is None or variance is None:
        count = seen.sum()
        mean = (x * seen).sum(dim=(0, 2, 3)) / count
        variance = ((x - _wide(mean)).square() * seen).sum(dim=(0, 2, 3)) / count
        if norm.training and norm.track_running_stats:
            _follow(norm, mean.detach(), variance.detach() * (count / (count - 1).clamp_min(1)))
    scaled = (x - _wide(mean)) / _wide(variance + norm.eps).sqrt()
    if norm.affine:
        scaled = scaled * _wide(norm.weight) + _wide(norm.bias)
    return scaled * seen


def _wide(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_(variance.to(norm.running_var), share)
