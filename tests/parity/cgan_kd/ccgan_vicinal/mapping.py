"""cgan_kd: bandwidths from the labels, vicinities, vicinal weights and losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor, float64, tensor

from kdbench.methods.cgan_kd.ccgan import Vicinity
from kdbench.methods.cgan_kd.gan import discriminator_losses, generator_loss

GIVEN = ("train_labels", "target_labels", "real_index", "real_labels", "fake_labels", "[dg]_logit_*")
SCALARS = ("kappa", "sigma", "vicinity_radius")


def objective(gradient: str) -> str:
    return "g_loss" if gradient.startswith("grad.g_") else "d_loss"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    labels, targets = tensors["train_labels"], tensors["target_labels"]
    soft, least = scalars["threshold_type"] == "soft", scalars["weight_threshold"]
    vicinity = Vicinity.of(labels, scalars["kappa_multiplier"], soft, least_weight=least)
    kind = scalars["loss_type"]
    real, fake = discriminator_losses(tensors["d_logit_real"], tensors["d_logit_fake"], kind)
    weights = [vicinity.weights(tensors[name], targets) for name in ("real_labels", "fake_labels")]
    return {
        "kappa": tensor(vicinity.kappa, dtype=float64),
        "sigma": tensor(vicinity.sigma, dtype=float64),
        "vicinity_radius": tensor(vicinity.radius, dtype=float64),
        "vicinity_count": vicinity.span(labels.sort().values, targets)[1],
        "real_weights": weights[0],
        "fake_weights": weights[1],
        "d_loss_real_per_sample": real,
        "d_loss_fake_per_sample": fake,
        "d_loss": (weights[0] * real).mean() + (weights[1] * fake).mean(),
        "g_loss": generator_loss(tensors["g_logit_fake"], kind),
    }
