"""energykd: thresholds and row temperatures in the forms of kd and dkd, mixed rows of HE-DA."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of, watched
from kdbench.contract import Batch, Out
from kdbench.methods.energykd import adapter

WEIGHTS, HEDA_WEIGHTS = ("ce_weight", "kd_weight"), (0.1, 0.9)
"""Names of two hyper-parameters, and their values in the cases of HE-DA, which store none."""


def objective(gradient: str) -> str:
    name = next((form for form in ("heda", "dkd") if gradient.startswith(f"{form}_")), "")
    return f"{name}_loss_total".lstrip("_")


def energies(scalars: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    shares = {f"{which}_share": scalars[f"{prefix}{which}_rate"] for which in ("low", "high")}
    return {"energy_temperature": scalars["energy_T"], **shares}


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    y, trained = tensors["target"], tensors["teacher_logits_train"]
    nets = [Stub(Out(tensors["student_logits"])), Stub(Out(torch.cat([tensors["teacher_logits"], trained])))]
    temperatures = {"temperature_low_energy": "LOW", "temperature": "MID", "temperature_high_energy": "HIGH"}
    hp = {name: scalars[f"T_config_{stored}"] for name, stored in temperatures.items()} | energies(scalars)
    task = {"n_train": len(trained), "first": len(y)}
    found = {}
    forms = [("kd", "", {name: scalars.get(name, 1.0) for name in WEIGHTS})]
    if "alpha" in scalars:
        dkd = {"alpha": scalars["alpha"], "beta": scalars["beta"], "warmup_epochs": scalars["warmup"]}
        forms.append(("dkd", "dkd_", {**dkd, **dict.fromkeys(WEIGHTS, 1.0)}))
    for form, prefix, own in forms:
        made = assembled("energykd", {**hp, "form": form, **own}, batch_of(y), nets[:1], nets[1], **task)
        with watched(adapter, "energy", "thresholds", "row_temperatures") as calls:
            terms = made.terms(epoch=scalars.get("epoch", 1) - 1)  # the vectors count epochs from 1
        found |= {f"{prefix}loss_ce": terms["ce"], f"{prefix}loss_kd": terms[form]}
        found[f"{prefix}loss_total"] = terms["ce"] + terms[form]
        found |= dict(zip(("threshold_low", "threshold_high"), calls["thresholds"][0].result, strict=True))
        found |= {"energy": calls["energy"][-1].result, "temperature": calls["row_temperatures"][0].result[:, 0]}
    return found | (heda(tensors, scalars) if "heda_image" in tensors else {})


class Seen(Stub):
    """Answers the case's pictures, then what is made of them; a training row is a picture of its number.

    Attributes:
        pictures: what it was shown.
    """

    def __init__(self, own: Tensor, mixed: Tensor, trained: Tensor) -> None:
        super().__init__(Out(own))
        self.answers, self.trained = [own, mixed], trained
        self.pictures: list[Tensor] = []

    def forward(self, batch: Batch) -> Out:
        x = batch.x[self.input]
        if not x.is_floating_point():
            return Out(self.trained[x[:, 0, 0, 0]])
        self.pictures.append(x)
        return Out(self.answers[len(self.pictures) - 1])


def heda(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Tensor]:
    y, images, trained = tensors["heda_target"], tensors["heda_image"], tensors["teacher_logits_train"]
    hp = {"form": "heda", "mixing": scalars["heda_augmentation"].lower(), "temperature": scalars["heda_temperature"]}
    hp |= energies(scalars, "heda_") | dict(zip(WEIGHTS, HEDA_WEIGHTS, strict=True))
    answers = {q: [tensors[f"heda_{q}_logits{which}"] for which in ("", "_aug")] for q in ("student", "teacher")}
    nets = [Seen(*of, trained) for of in answers.values()]
    numbers = torch.arange(len(trained)).view(-1, 1, 1, 1).expand(-1, *images.shape[1:])
    batch, classes = Batch({"image": images}, y, torch.arange(len(y))), trained.shape[1]
    made = assembled("energykd", hp, batch, nets[:1], nets[1], n_train=len(trained), pixels=numbers, classes=classes)
    made.method.mixup_shares = tensors["heda_lambda"].to(images).expand(adapter.LEVELS)
    drawn = patch.object(torch, "randperm", lambda *_, **__: tensors["heda_perm"])
    box = patch.object(adapter, "random_box", lambda *_: tensors["heda_box"])
    with watched(adapter, "mixed_rows", "thresholds") as calls, drawn, box:
        terms = made.terms()
    return {
        "heda_threshold_high": calls["thresholds"][0].result[1],
        "heda_selected": calls["mixed_rows"][0].result,
        "heda_mixed": nets[0].pictures[1],
        "heda_loss_ce": terms["ce"],
        "heda_loss_kd": terms["kd"],
        "heda_loss_aug": terms["mixed"],
        "heda_loss_total": torch.stack(list(terms.values())).sum(),
    }
