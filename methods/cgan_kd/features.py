"""Feature extractors of the density ratio and of the label embedding: the teacher, or nets of their own as published.

An own extractor's features are as wide as an image has values, F = C H W.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import models
from kdbench.contract import Network, TaskInfo

SPARSITY = 1e-3
"""Weight of the mean feature in the sparse auto-encoder's loss."""


def _zoo(net: str, shape: tuple[int, ...], outputs: int) -> Network:
    return models.build(net, shape, outputs)


def _conv(inputs: int, outputs: int, halves: bool) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 4, 2, 1) if halves else nn.Conv2d(inputs, outputs, 3, padding=1)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _hidden(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]


class ClassFeatures(nn.Module):
    """ResNet-34 whose pooled features are mapped to F before its classifier; trained with cross-entropy."""

    def __init__(self, task: TaskInfo, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.task = task
        self.net = _zoo("resnet34", shape, task.classes)
        self.width = math.prod(shape)
        self.expand = nn.Linear(self.net.classifier.in_features, self.width)
        self.classify = nn.Linear(self.width, task.classes)
        self.net.classifier.requires_grad_(False)  # replaced by the one behind the map

    def forward(self, images: Tensor) -> Tensor:
        """(N, F) features of images in [-1, 1]."""
        return F.relu(self.expand(self.net.encode(images).emb))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """0-d."""
        return F.cross_entropy(self.classify(self(images)), labels)


class SparseAutoencoder(nn.Module):
    """Four pairs of convolutions (4x4 at stride 2, 3x3) to 4x4 and a linear layer to F, with a mirrored decoder and a
    predictor of the label beside it.

    Loss: squared error of the image, the mean feature, and the squared error of the label in [0, 1].

    Args:
        shape: (C, H, H), H = 4 times a power of 2 up to 16.
        channels: width of the first pairs; the last has four times as many.
    """

    def __init__(self, shape: tuple[int, ...], channels: int) -> None:
        super().__init__()
        halved = int(math.log2(shape[-1] // 4))
        widths = [channels, channels, 2 * channels, 4 * channels, 4 * channels]
        pairs = list(pairwise(widths))
        self.width = math.prod(shape)
        down: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairs):
            down += _conv(shape[0] if number == 0 else inputs, inputs, halves=number < halved)
            down += _conv(inputs, outputs, halves=False)
        up: list[nn.Module] = []
        back = [widths[-1], 2 * channels, channels, channels, channels]
        for number, (inputs, outputs) in enumerate(pairwise(back)):
            if number < halved:
                up += [nn.ConvTranspose2d(inputs, inputs, 4, 2, 1), nn.BatchNorm2d(inputs), nn.ReLU()]
            up += _conv(inputs, outputs, halves=False)
        self.encode = nn.Sequential(*down, nn.Flatten())
        self.features = nn.Linear(widths[-1] * 16, self.width)
        self.expand = nn.Sequential(*_hidden(self.width, widths[-1] * 16))
        self.decode = nn.Sequential(*up, nn.Conv2d(channels, shape[0], 3, padding=1), nn.Tanh())
        self.predict = nn.Sequential(
            *_hidden(self.width, 1024), *_hidden(1024, 512), *_hidden(512, 256), nn.Linear(256, 1), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, F) features, at least 0, of images in [-1, 1]."""
        return F.relu(self.features(self.encode(images)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """0-d; labels (N,) in [0, 1]."""
        features = self(images)
        images_again = self.decode(self.expand(features).unflatten(1, (-1, 4, 4)))
        label_error = F.mse_loss(self.predict(features).squeeze(1), labels)
        return F.mse_loss(images_again, images) + SPARSITY * features.mean() + label_error


class LabelFeatures(nn.Module):
    """Image to embedding to label: the frozen second half (:meth:`back`) is what the label net learns to invert."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.net = _zoo("resnet34", shape, 1)
        inputs = self.net.classifier.in_features
        self.net.classifier.requires_grad_(False)  # replaced by the layers below
        self.embed = nn.Sequential(*_hidden(inputs, inputs), *_hidden(inputs, width))
        self.head = nn.Linear(width, 1)

    def back(self, embedding: Tensor) -> Tensor:
        """Labels (N,) of embeddings (N, width)."""
        return self.head(embedding).relu().squeeze(1)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """0-d; labels (N,) in [0, 1]."""
        return F.mse_loss(self.back(self.embed(self.net.encode(images).emb)), labels)


def trained_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Those a stage updates."""
    return [p for p in net.parameters() if p.requires_grad]


def sgd(lr: float) -> dict[str, Any]:
    """Optimiser of the published pre-training."""
    return {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
