"""cc: two linear embeddings and neighbouring rows."""

from __future__ import annotations

from typing import Any

from imitated import imitated
from torch import Tensor


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    def bind(method: Any) -> None:
        case.bind(method.embed_student, "weight.embed_s.")
        case.bind(method.embed_teacher, "weight.embed_t.")

    width = len(tensors["weight.embed_s.weight"])
    return imitated("cc", case, scalars, {"correlation_weight": 1.0}, bind, width=width)[0]
