"""crd: two steps on one module, memories and constants between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of
from kdbench.contract import Out


class Drawn:
    """Negatives as a case stores them, behind each row's positive."""

    def __init__(self, contrast_index: Tensor) -> None:
        self.index = contrast_index[:, 1:]

    def draw(self, y: Tensor, rng: torch.Generator) -> Tensor:
        return self.index


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    steps = range(1, 1 + sum(name.endswith(".contrast_index") for name in tensors))
    whole = Steps(case, scalars, scalars["gamma"], scalars["alpha"], scalars["beta"])
    parts = Steps(case, scalars, 1.0, 1.0, 1.0)
    found, totals = {}, []
    for step in steps:
        found |= {f"output.step{step}.{name}": value for name, value in parts.step(step).items()}
        totals.append(whole.step(step)["total"])
        found[f"output.step{step}.total"] = totals[-1]
    return {**found, "output.total": torch.stack(totals).sum()}


class Steps:
    """The method through the steps of a case, its memories and constants kept from one to the next.

    Args:
        ce, kd, contrast: weights; a step without labels has no CE, one without teacher logits no KL.
    """

    def __init__(self, case: Any, scalars: dict[str, Any], ce: float, kd: float, contrast: float) -> None:
        self.case, self.weights = case, (ce, kd)
        self.hp = {"contrast_weight": contrast, "contrast_temperature": scalars["nce_t"], "momentum": scalars["nce_m"]}
        self.hp |= {"temperature": scalars["kd_T"], "width": scalars["feat_dim"], "negatives": scalars["K"]}
        self.n, self.kept = scalars["n_data"], {}
        for i, number in enumerate((1, 2)):
            self.kept[f"banks.{i}.rows"] = case.tensors[f"input.memory_v{number}_init"].detach().clone()

    def _made(self, step: int) -> Assembled:
        given = {name: self.case.tensors.get(f"input.step{step}.{name}") for name in NAMES}
        nets = [Stub(Out(given[f"logits_{q}"], emb=given[f"emb_{q}"])) for q in "st"]
        index, y = given["index"], given["target"]
        softened = all(net.out.has("logits") for net in nets)
        ce, kd = self.weights[0] * (y is not None), self.weights[1] * softened
        if not nets[0].out.has("logits"):
            nets[0].out = nets[0].out._replace(logits=torch.zeros(len(index), 2))
        batch = batch_of(torch.zeros_like(index) if y is None else y, index=index)
        hp = {**self.hp, "ce_weight": ce, "kd_weight": kd}
        made = assembled("crd", hp, batch, nets[:1], nets[1], n_train=self.n)
        for q, embed in zip("st", made.method.embeddings, strict=True):
            self.case.bind(embed, f"weight.embed_{q}.", {"": "linear."})
        made.method.load_state_dict(self.kept, strict=False)
        made.method.negatives = Drawn(given["contrast_index"])
        return made

    def step(self, step: int) -> dict[str, Tensor]:
        """Losses of a step by stored name, and the memories and constants after it."""
        made = self._made(step)
        method: Any = made.method
        seen: list[Tensor] = []
        for module in (*method.embeddings, *method.contrasts):
            module.register_forward_hook(lambda _module, _given, result: seen.append(result))
        terms = made.terms()
        made.step()
        self.kept = {name: value.clone() for name, value in method.named_buffers()}
        found = dict(zip(("v_s", "v_t", "loss_s", "loss_t"), seen, strict=True))
        found |= {f"Z_{q}": contrast.z for q, contrast in zip("st", method.contrasts, strict=True)}
        found |= {f"memory_v{i}": bank.rows for i, bank in enumerate(method.banks, 1)}
        names = {"task": "loss_ce", "kd": "loss_kl", "contrast": "loss_kd"}
        found |= {stored: terms[term] for term, stored in names.items() if term in terms}
        return {**found, "total": torch.stack(list(terms.values())).sum()}


NAMES = ("logits_s", "logits_t", "target", "emb_s", "emb_t", "index", "contrast_index")
