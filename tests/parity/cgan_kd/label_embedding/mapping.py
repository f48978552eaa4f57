"""cgan_kd: the label net, and its loss through the frozen map back to the label."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from kdbench.methods.cgan_kd.ccgan import LabelNet, label_loss, noisy

GIVEN = ("labels", "noise", "y2h.*", "h2y.*")


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    layers = sum(name.startswith("y2h.main.") and tensor.ndim == 2 for name, tensor in tensors.items()) - 1
    net = case.bind(LabelNet(scalars["E"], layers, scalars["groups"]), "y2h.")
    head = case.bind(nn.Sequential(nn.Linear(scalars["E"], 1), nn.ReLU()), "h2y.")
    labels = noisy(tensors["labels"], tensors["noise"])

    def back(embedding: Tensor) -> Tensor:
        return head(embedding).squeeze(1)

    embedding = net(labels)
    return {
        "noisy_labels": labels,
        "embedding": embedding,
        "reconstructed": back(embedding),
        "loss": label_loss(net, back, labels),
    }
