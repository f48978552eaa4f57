"""compress: two steps on its banks, in its three forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Batch, Out

FORMS = {"two": "own", "one": "teacher", "mom": "momentum"}


class Slow(nn.Module):
    """Stands for the slow copy: gives its embeddings of a step."""

    def __init__(self, emb: Tensor) -> None:
        super().__init__()
        self.emb = (emb,)

    def forward(self, batch: Batch) -> Out:
        return Out(self.emb[0], emb=self.emb[0])


def objective(gradient: str) -> str:
    return f"{gradient.partition('_grad_')[0]}_loss_total"


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for form in FORMS:
        found |= {f"{form}_{name}": value for name, value in steps(form, tensors, scalars).items()}
    return found


def steps(form: str, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Tensor]:
    """Losses and banks of one form."""
    names = ["teacher"] if form == "one" else ["teacher", "student"]
    held = [tensors[f"{form}_{who}_bank_before"].detach().clone() for who in names]
    prefix = "one_" if form == "one" else ""
    hp = {"queue": scalars["queue"], "temperature": scalars["T"], "student_bank": FORMS[form]}
    at, losses = torch.zeros((), dtype=torch.int64), []
    for step in range(1, 1 + scalars["steps"]):
        embs = [tensors[f"{prefix}student_emb_{step}"], tensors[f"teacher_emb_{step}"]]
        nets = [Stub(Out(emb, emb=emb)) for emb in embs]
        rows = torch.zeros(scalars["B"], dtype=torch.int64)
        made = assembled(
            "compress", hp, batch_of(rows), nets[:1], nets[1], kind="representation", n_train=scalars["queue"]
        )
        method: Any = made.method
        for bank, values in zip(method.banks, held, strict=True):
            bank.rows.copy_(values)
            bank.at.copy_(at)
        if form == "mom":
            method.slow = Slow(tensors[f"student_key_{step}"])
        losses.append(made.total())
        made.step()
        held, at = [bank.rows for bank in method.banks], method.banks[0].at
    found = {f"loss_{step}": loss for step, loss in enumerate(losses, 1)}
    found |= {f"{who}_bank_after": values for who, values in zip(names, held, strict=True)}
    return {**found, "loss_total": torch.stack(losses).sum()}
