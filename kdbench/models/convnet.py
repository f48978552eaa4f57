"""Plain convolutional nets for tiny images, sized by one width; the embedded tasks' teachers and students."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from kdbench.models.base import ConvNorm, GlobalPool, Staged, Trunk


class ConvStage(nn.Module):
    """Convolution (with bias), batch norm, ReLU."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer = ConvNorm(conv, norm)

    @property
    def norm(self) -> nn.Module:
        return self.layer.norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.layer(x)
        return before.relu(), before


class ConvNet(Staged):
    """Stages of one kernel-3 convolution, widths w, 2w, 4w ..., strides 1, 2, 2 ...; global average pool; linear.

    Input (N, in_channels, H, W), any size. There is no stem. Width 2 on grey images has 510 parameters for 10 classes
    and 429 for a regression; width 32 has 94,410.

    Args:
        width: w.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
        stages: how many, three unless said otherwise.
    """

    conv: type[nn.Module] = nn.Conv2d
    norm_layer: type[nn.Module] = nn.BatchNorm2d

    def __init__(self, width: int, in_channels: int, outputs: int, stages: int = 3) -> None:
        widths = (in_channels, *(width * 2**place for place in range(stages)))
        strides = (1, *[2] * (stages - 1))
        made = [self.stage(*sizes) for sizes in zip(widths, widths[1:], strides, strict=False)]
        again = partial(self.stage, widths[-1], widths[-1], 1)
        super().__init__(None, Trunk(made, GlobalPool()), widths[-1], outputs, again)

    @classmethod
    def stage(cls, inputs: int, outputs: int, stride: int) -> ConvStage:
        """One stage."""
        return ConvStage(cls.conv(inputs, outputs, 3, stride, padding=1), cls.norm_layer(outputs))


def build(input_shape: tuple[int, ...], outputs: int, width: int, stages: int = 3) -> ConvNet:
    """A :class:`ConvNet` for (channels, height, width) inputs."""
    return ConvNet(width, input_shape[0], outputs, stages)
