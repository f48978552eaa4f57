"""Small nets of one's own, unchanged modules, and their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdbench.specs import nets


class Block(nn.Module):
    """A residual block as torchvision writes it: one ReLU, in place, used twice."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and inputs == width
        self.downsample = None if same else nn.Sequential(
            nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += shortcut
        return self.relu(out)


class Small(nn.Module):
    """Stem, three stages, pool, linear; what it returns is ``answer`` of its scores."""

    def __init__(self, channels: int, width: int, classes: int, answer: Any = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2))
        self.avgpool, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout)
        self.fc = nn.Linear(4 * width, classes)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return logits if self.answer is None else self.answer(logits)


LAYERS = ("layer1", "layer2", "layer3")
NORMS = tuple(f"{layer}.0.bn2" for layer in LAYERS)
TAPS: dict[str, Any] = {"maps": LAYERS, "norms": NORMS, "stem": "relu"}


@contextmanager
def declared(name: str, factory: Any, **taps: Any) -> Iterator[str]:
    """A net is known within the block."""
    nets.net(name, **taps)(factory)
    try:
        yield name
    finally:
        nets.forget(name)
