"""Golden cases of RepDistiller's objective, ``gamma CE + alpha KL + beta own``, through the assembled method."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.checks.stubs import Assembled, Call, Stub, assembled, batch_of, watched
from kdbench.contract import Method, Out
from kdbench.specs import registry

Bind = Callable[[Method], Any]
SUPERVISION = {"task": "loss_ce", "kd": "loss_kl"}
"""Terms every method of this objective has to their stored names."""


def networks(case: Any, **teacher: Any) -> tuple[Stub, Stub]:
    """Student and teacher of a case, from its logits, embeddings and maps; maps serve before and after activation."""
    made = []
    for which, more in (("s", {}), ("t", teacher)):
        maps, emb = tuple(case.listed(f"input.feat_{which}.")), case.tensors.get(f"input.emb_{which}")
        rows = len(maps[0]) if maps else len(emb)
        logits = case.tensors.get(f"input.logits_{which}", torch.zeros(rows, 2))
        made.append(Stub(Out(logits, maps, maps, None, emb), **more))
    return made[0], made[1]


def imitated(
    name: str,
    case: Any,
    scalars: Mapping[str, Any],
    own: Mapping[str, float],
    bind: Bind = lambda method: None,
    watch: Sequence[str] = (),
    stages: Sequence[str] = ("distill",),
    teacher: Mapping[str, Any] | None = None,
    **hp: Any,
) -> tuple[dict[str, Tensor], dict[str, list[Call]], Assembled]:
    """Stored losses and their total, calls of watched functions of the adapter, and the method that gave the total.

    The method runs twice: with the case's weights, which gives the total that gradients are of, and with weights 1,
    which gives the losses as they are stored.

    Args:
        own: weights of the method's own terms, to be multiplied by ``beta``.
        bind: puts the stored weights into the method's modules.
        stages: those whose terms the total is of.
        teacher: further arguments of the teacher's stub.
        hp: the method's other hyper-parameters.
    """
    y = case.tensors.get("input.target")
    softened = {"input.logits_s", "input.logits_t"} <= set(case.tensors)

    def run(ce: float, kd: float, beta: float) -> tuple[dict[str, Tensor], Assembled]:
        nets = networks(case, **(teacher or {}))
        labels = torch.zeros(len(nets[0].out.logits), dtype=torch.long) if y is None else y  # type: ignore[arg-type]
        weights = {"ce_weight": ce if y is not None else 0.0, "kd_weight": kd if softened else 0.0}
        values = {
            **weights,
            "temperature": scalars["kd_T"],
            **{key: beta * weight for key, weight in own.items()},
            **hp,
        }
        made = assembled(name, values, batch_of(labels), nets[:1], nets[1])
        bind(made.method)
        terms: dict[str, Tensor] = {}
        for stage in stages:
            terms |= made.terms(stage)
        return terms, made

    terms, made = run(scalars["gamma"], scalars["alpha"], scalars["beta"])
    with watched(sys.modules[registry.method(name).adapter().__module__], *watch) as calls:
        parts, _ = run(1.0, 1.0, 1.0)
    found = {stored: parts[term] for term, stored in SUPERVISION.items() if term in parts}
    found["loss_kd"] = torch.stack([value for term, value in parts.items() if term not in SUPERVISION]).sum()
    found["total"] = torch.stack(list(terms.values())).sum()
    return {f"output.{key}": value for key, value in found.items()}, calls, made


def numbered(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """``name.0``, ``name.1`` and so on."""
    return {f"{name}.{i}": value for i, value in enumerate(values)}


def results(calls: Sequence[Call]) -> list[Any]:
    """What the calls gave."""
    return [call.result for call in calls]
