"""Batch norm over the rows of all ranks, on any device (torch's SyncBatchNorm refuses CPU tensors)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Joined(nn.Module):
    """What the joined forms of batch norm share: in training mode the statistics are those of all ranks' rows."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's batch norm of the same number of axes."""
        norm: Any = self
        norm._check_input_dim(x)
        tracked = norm.running_mean is not None
        if not norm.training:
            return super().forward(x)
        y, mean, var, count = _JoinedNorm.apply(x, norm.weight, norm.bias, norm.eps)
        if tracked:
            norm.num_batches_tracked.add_(1)
            share = 1.0 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            with torch.no_grad():
                norm.running_mean.lerp_(mean.to(norm.running_mean), share)
                norm.running_var.lerp_((var * count / (count - 1)).to(norm.running_var), share)
        return y


class JoinedBatchNorm1d(_Joined, nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` over all ranks."""


class JoinedBatchNorm2d(_Joined, nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` over all ranks."""


class JoinedBatchNorm3d(_Joined, nn.BatchNorm3d):
    """:class:`torch.nn.BatchNorm3d` over all ranks."""


_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: JoinedBatchNorm1d,
    nn.BatchNorm2d: JoinedBatchNorm2d,
    nn.BatchNorm3d: JoinedBatchNorm3d,
}


def join_norms(net: nn.Module) -> None:
    """Makes every batch norm of ``net`` one over all ranks, in place: whoever holds the module holds the joined one."""
    for module in net.modules():
        if type(module) in _FORMS:
            module.__class__ = _FORMS[type(module)]


class _JoinedNorm(torch.autograd.Function):
    """Normalises (N, C, ...) by the mean and variance of a channel over the rows and positions of all ranks.

    The gradient is that of the loss summed over ranks: two sums a channel are exchanged. Scale and shift get this
    rank's part of theirs, as any other parameter does.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [0, *range(2, x.ndim)]
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        own = values.new_full((), x.numel() // x.shape[1])  # filled there: a copy would make the host wait
        own_var, own_mean = torch.var_mean(values, axes, correction=0)
        # Each rank's count, means and squared deviations: sums of squares would lose digits.
        parts = _of_all(torch.cat([own[None], own_mean, own_var]))
        counts, means, variances = parts[:, :1], *parts[:, 1:].chunk(2, dim=1)
        count = counts.sum()
        if x.device.type == "cpu" and count == 1:
            raise ValueError(f"batch norm needs more than one value of a channel, the ranks have one: {tuple(x.shape)}")
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean).square())).sum(0) / count
        inverse = (var + eps).rsqrt()
        normal = (values - _wide(mean, x)) * _wide(inverse, x)
        y = normal if weight is None else normal * _wide(weight, x)
        y = y if bias is None else y + _wide(bias, x)
        ctx.save_for_backward(values, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, var, count)
        return y.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, inverse, count = ctx.saved_tensors
        axes = [0, *range(2, values.ndim)]
        grad = grads[0].to(values.dtype)
        normal = (values - _wide(mean, values)) * _wide(inverse, values)
        shift, scale = grad.sum(axes), (grad * normal).sum(axes)
        sums = torch.cat([shift, scale])
        dist.all_reduce(sums)
        mean_shift, mean_scale = (sums / count).chunk(2)
        inner = grad - _wide(mean_shift, values) - normal * _wide(mean_scale, values)
        factor = inverse if weight is None else inverse * weight
        asked = ctx.needs_input_grad
        return (
            (inner * _wide(factor, values)).to(grads[0].dtype) if asked[0] else None,
            scale if asked[1] else None,
            shift if asked[2] else None,
            None,
        )


def _of_all(row: Tensor) -> Tensor:
    """(ranks, K) of each rank's (K,)."""
    parts = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, row)
    return torch.stack(parts)


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) beside (N, C, ...)."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))
