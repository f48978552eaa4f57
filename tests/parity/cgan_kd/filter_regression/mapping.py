"""cgan_kd: the teacher's filter of fakes with scalar labels; whole-number labels are the authors', cut off here."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.cgan_kd.sampling import filter_scalars, label_errors

GIVEN = ("cond_labels", "teacher_output")


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    labels, output = tensors["cond_labels"].detach(), tensors["teacher_output"].detach()
    predicted, errors = label_errors(output, labels, scalars["max_label"])
    if scalars["integer_labels"]:
        predicted = predicted.trunc()
        errors = (predicted - labels).abs()
    kept, cutoff = filter_scalars(errors, scalars["q"])
    return {
        "teacher_label": predicted,
        "abs_error": errors,
        "cutoff": cutoff,
        "kept": kept,
        "out_labels": (predicted if scalars["adjust"] else labels)[kept],
    }
