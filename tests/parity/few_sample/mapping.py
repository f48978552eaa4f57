"""few_sample: the fit of one layer from given maps, taken into its convolution; nothing of it has a gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.methods.few_sample.adapter import absorbed, fitted, moments, residual


def run(tensors: dict[str, Tensor], scalars: dict[str, Any], case: Any) -> dict[str, Tensor]:
    found = moments(tensors["student_feat"], tensors["teacher_feat"][:, tensors["kept"]])
    layer = fitted(found)
    return {
        "pointwise_weight": layer.to(case.dtype),
        "conv_weight_after": absorbed(tensors["conv_weight"], layer),
        "residual": residual(found, layer).to(case.dtype),
    }
