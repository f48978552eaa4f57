"""mlkd: the three levels in the form of the published code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Stub, assembled, batch_of
from kdbench.contract import Out


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:

    nets = [Stub(Out(torch.cat([tensors[f"input.logits_{q}_{view}"] for view in ("weak", "strong")]))) for q in "st"]
    hp = {name: scalars[name] for name in ("ce_weight", "kd_weight")}
    hp |= {"temperature": scalars["T"], "more_temperatures": scalars["extra_T"], "official_code": True}
    terms = assembled("mlkd", hp, batch_of(tensors["input.target"].repeat(2), views=2), nets[:1], nets[1]).terms()
    names = {"ce": "ce", "kd": "kd", "class": "cc", "batch": "bc"}
    found = {f"output.loss_{stored}": terms[term] for term, stored in names.items()}
    return {**found, "output.total": torch.stack(list(terms.values())).sum()}
