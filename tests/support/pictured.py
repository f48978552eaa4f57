"""cgan_kd on made-up pictures, beside a teacher that answers with given features."""

from __future__ import annotations

from typing import Any

import torch
from smalls import distinct, network
from torch import nn

from kdbench.checks.stubs import Assembled, assembled, batch_of
from kdbench.contract import At

N, RATE = 12, 0.05
SMALL = {
    "channels": 8, "latent": 3, "gan_batch": 4, "ratio_batch": 5, "ratio_widths": [32, 64], "embed_groups": 4,
    "feature_batch": 6, "gan_steps": 11, "embed_steps": 13, "ratio_steps": 17, "feature_epochs": 19, "d_steps": 2,
    "diffaugment": [], "embed_batch": 4, "inner": None,
    "relabel": False, "ratio_drops": [0.35, 0.7], "embed_drops": [0.55], "ema_decay": 0.75, "ema_start": 3,
}  # fmt: skip
FAKES = {"x": torch.full((4, 1, 8, 8), 7, dtype=torch.uint8), "y": torch.tensor([1, 0, 2, 1])}


def made(name: str = "cgan_kd", kind: str = "classification", **given: Any) -> Assembled:
    """The method with fakes that are there."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(1)
    student, teacher = network(0, N), network(10, N)
    teacher.last = nn.Linear(7, 1 if kind == "regression" else 5)
    y = torch.arange(N) % 5 if kind == "classification" else torch.linspace(-1, 1, N) ** 3
    facts: dict[str, Any] = {"kind": kind, "n_train": N, "train_labels": y, "raw_shape": {"image": (1, 8, 8)}}
    if kind == "regression":
        student.out = student.out._replace(logits=student.out.logits[:, 0])
        facts |= {"label_range": (-1.0, 1.0), "classes": 1}
    facts["pixels"] = torch.randint(256, (N, 1, 8, 8), generator=rng, dtype=torch.uint8)
    found = assembled(name, distinct(name, **{**SMALL, **given}), batch_of(y), [student], teacher, **facts)
    found.method.make_fakes = lambda: FAKES
    return found


def at(step: int = 0) -> At:
    return At(step, 0, 0, 0.0, torch.Generator().manual_seed(3))
