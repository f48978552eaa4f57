"""sskd: rows kept, four terms, the teacher head's own stage."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.checks.stubs import Assembled, Stub, assembled, batch_of, image_major, watched
from kdbench.contract import Out
from kdbench.methods.sskd import adapter

HP = {
    "temperature": "kd_T", "rotation_temperature": "tf_T", "similarity_temperature": "ss_T",
    "rotation_share": "ratio_tf", "similarity_share": "ratio_ss",
}  # fmt: skip
TERMS = {"ce": "ce", "kd": "kd", "rotation": "tf", "similarity": "ss"}


def objective(gradient: str) -> str:
    return "out.teacher_ssp" if gradient.startswith("grad_teacher_ssp.") else "out.total"


def made(case: Any, scalars: dict[str, Any], weights: dict[str, float]) -> Assembled:
    """The method with the case's networks and heads."""
    tensors, y = case.tensors, case.tensors["labels"]
    nets = [Stub(Out(tensors[f"{side}.logits"], emb=tensors[f"{side}.feat"])) for side in ("student", "teacher")]
    hp = {name: scalars[stored] for name, stored in HP.items()} | {f"{term}_weight": w for term, w in weights.items()}
    batch = batch_of(y.repeat(4), rows=image_major(len(y), 4), views=4)
    found = assembled("sskd", hp, batch, nets[:1], nets[1])
    case.bind(found.method.student_head, "student.proj.")
    case.bind(found.method.teacher_head, "teacher.proj.")
    return found


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    weights = {term: scalars[f"{stored}_weight"] for term, stored in TERMS.items()}
    with watched(adapter, "similarity", "kept") as calls:
        terms = made(case, scalars, dict.fromkeys(weights, 1.0)).terms()
    likeness, rows = ([call.result for call in calls[name]] for name in ("similarity", "kept"))
    whole = made(case, scalars, weights)
    return {
        "out.teacher_similarity": likeness[0],
        "out.student_similarity": likeness[1],
        "out.keep_tf": rows[0].nonzero().squeeze(1),
        "out.keep_ss": rows[1].nonzero().squeeze(1),
        **{f"out.{stored}": terms[term] for term, stored in TERMS.items()},
        "out.total": whole.total(),
        "out.teacher_ssp": whole.total("teacher_head"),
    }
