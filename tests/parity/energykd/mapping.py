"""energykd: thresholds and row temperatures in the forms of kd and dkd, mixed rows of HE-DA."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.energykd.adapter import (
    cutmix,
    energy,
    mixed_rows,
    mixup,
    row_temperatures,
    thresholds,
)
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import linear_ramp, row_divergence


def objective(gradient: str) -> str | list[str]:
    if gradient.startswith("heda_"):
        return ["heda_loss_ce", "heda_loss_kd", "heda_loss_aug"]
    return "dkd_loss_total" if gradient.startswith("dkd_") else "loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    student, teacher, y = (tensors[name] for name in ("student_logits", "teacher_logits", "target"))
    all_energies = energy(tensors["teacher_logits_train"], scalars["energy_T"])
    low, high = thresholds(all_energies, scalars["low_rate"], scalars["high_rate"])
    energies = energy(teacher, scalars["energy_T"])
    tau = row_temperatures(energies, (low, high), *(scalars[f"T_config_{name}"] for name in ("LOW", "MID", "HIGH")))
    found = {"threshold_low": low, "threshold_high": high, "energy": energies, "temperature": tau[:, 0]}
    if "kd_weight" in scalars:
        ce, kd = F.cross_entropy(student, y), row_divergence(student, teacher, tau).mean()
        found |= {"loss_ce": scalars["ce_weight"] * ce, "loss_kd": scalars["kd_weight"] * kd}
        found["loss_total"] = found["loss_ce"] + found["loss_kd"]
    if "alpha" in scalars:
        ramp = linear_ramp(scalars["epoch"] - 1, scalars["warmup"])  # the vectors count epochs from 1
        kd = ramp * dkd_loss(student, teacher, y, tau, scalars["alpha"], scalars["beta"])
        found |= {"dkd_loss_ce": F.cross_entropy(student, y), "dkd_loss_kd": kd}
        found["dkd_loss_total"] = found["dkd_loss_ce"] + found["dkd_loss_kd"]
    return found | (heda(tensors, scalars, all_energies) if "heda_image" in tensors else {})


def heda(tensors: dict[str, Tensor], scalars: dict[str, Any], all_energies: Tensor) -> dict[str, Tensor]:
    logits = {name: tensors[f"heda_{name}"] for name in ("student_logits", "teacher_logits")}
    _, high = thresholds(all_energies, scalars["heda_low_rate"], scalars["heda_high_rate"])
    rows = mixed_rows(energy(logits["teacher_logits"], scalars["energy_T"]), high)
    x = tensors["heda_image"][rows]
    partner = x[tensors["heda_perm"]]
    if scalars["heda_augmentation"] == "CUTMIX":
        mixed = cutmix(x, partner, tensors["heda_box"])
    else:
        mixed = mixup(x, partner, tensors["heda_lambda"].to(x))
    t, of_mixed = scalars["heda_temperature"], [tensors[f"heda_{q}_logits_aug"] for q in ("student", "teacher")]
    return {
        "heda_threshold_high": high,
        "heda_selected": rows,
        "heda_mixed": mixed,
        "heda_loss_ce": 0.1 * F.cross_entropy(logits["student_logits"], tensors["heda_target"]),
        "heda_loss_kd": 0.9 * kd_loss(logits["student_logits"], logits["teacher_logits"], t),
        "heda_loss_aug": 0.9 * kd_loss(of_mixed[0], of_mixed[1], t),
    }
