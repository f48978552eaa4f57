"""hash_kd: every relation, SP in both readings; the turned copies of sskd are a batch of their own."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from hashed import own_loss, two_views
from torch import Tensor

from kdbench.checks.stubs import image_major
from kdbench.contract import bits
from kdbench.methods.hash_kd import adapter

WEIGHTS = {"rkd": "l1_weight", "pkt": "l1_weight", "sp": "l1_weight", "kl": "kl_distill_weight"}


def objective(gradient: str) -> str:
    return f"{gradient.partition('_grad_')[0]}_loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    views, teacher = (tensors["student_logits_i"], tensors["student_logits_j"]), tensors["teacher_code_i"]
    settings = {
        "DISTANCE": scalars["rkd_w_distance"],
        "ANGLE": scalars["rkd_w_angle"],
        "TEMPERATURE": scalars["kl_T"],
        "TURNED_TEMPERATURE": scalars["sskd_T"],
    }
    found = {}
    with own_loss(scalars), patch.multiple(adapter, **settings):
        for form, weight in WEIGHTS.items():
            hp = {"relation": form, "weight": scalars[weight]}
            terms = two_views("hash_kd", hp, views, (teacher, teacher)).terms()
            found[f"{form}_loss_kd"] = terms[form] / scalars[weight]
            found[f"{form}_loss_total"] = terms["task"] + terms[form]
        found["loss_base"] = terms["task"]
        found["sp_batch_loss_kd"] = adapter.relation("sp_batch", bits(views[0]), teacher)
        copies = 1 + len(adapter.TURNS)
        rows = image_major(len(tensors["sskd_teacher_code"]) // copies, copies)
        turned = bits(tensors["sskd_student_logits"][rows]), tensors["sskd_teacher_code"][rows]
        found["sskd_loss_kd"] = adapter.turned_similarity(*turned, copies)
    return {**found, "sskd_loss_total": found["loss_base"] + found["sskd_loss_kd"]}
