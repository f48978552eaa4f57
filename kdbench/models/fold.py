"""Batch norms folded into the convolutions before them: the same function in eval mode, with less to compute."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kdbench.models.base import ConvNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_norms(net: nn.Module) -> int:
    """Folds every batch norm that follows a convolution in a :class:`ConvNorm`, in place; outputs stay equal.

    A norm before a convolution (wide residual nets), behind a factored one (video nets) or of timm is left as it is.

    Args:
        net: in eval mode; its norms have running statistics.

    Returns:
        How many were folded.
    """
    folded = 0
    for module in [module for module in net.modules() if isinstance(module, ConvNorm)]:
        conv, norm = module.conv, module.norm
        if isinstance(conv, CONVOLUTIONS) and isinstance(norm, NORMS):
            module.conv, module.norm = fuse_conv_bn_eval(conv, norm), nn.Identity()
            folded += 1
    return folded
