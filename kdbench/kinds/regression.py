"""Regression: a number a row, standardised on the training rows; networks give one number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds.base import Evidence, Kind, Metric, Scaling, Tiny

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Rows


def _around_median(y: Sequence[float]) -> float:
    middle = statistics.median(y)
    return statistics.fmean(abs(value - middle) for value in y)


def _errors(p: Evidence) -> Tensor:
    return (p.output.double() - p.y.double()).abs()


def _mae(p: Evidence) -> Tensor:
    return _errors(p).mean()


def _rmse(p: Evidence) -> Tensor:
    return (p.output.double() - p.y.double()).square().mean().sqrt()


class Regression(Kind):
    """Targets are (N,) float32; the loss is the mean squared error of the scaled ones."""

    name = "regression"
    about = "a number a row"
    metrics: ClassVar = {
        "mae": Metric(False, None, "mean absolute error", _mae, chance=_around_median, word="MAE", each=_errors),
        "rmse": Metric(False, None, "root of the mean squared error", _rmse, chance=statistics.pstdev, word="RMSE"),
    }
    tiny = Tiny("mae", lambda pixels, digits: digits.float(), classes=1, label_range=(0.0, 9.0))

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        return f"{len(train.y.unique())} classes" if label_range is None else None

    def scaling(self, train: Rows, label_range: tuple[float, float] | None) -> Scaling:
        offset, scale = float(train.y.double().mean()), float(train.y.double().std())
        if label_range is None:
            return Scaling(offset, scale)
        low, high = label_range
        return Scaling(offset, scale, ((low - offset) / scale, (high - offset) / scale))

    def scaled(self, y: Any, scaling: Scaling) -> Any:
        return (y.float() - scaling.offset) / scaling.scale

    def loss(self, out: Out, batch: Batch) -> Tensor:
        import torch.nn.functional as F

        return F.mse_loss(out.logits, batch.y)

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        return super().answer(out, batch, scaling) * scaling.scale + scaling.offset


KIND = Regression()
