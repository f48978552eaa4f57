"""Metrics: direction, unit, range, noise, and the function of test-set predictions behind each."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below is read by `list` and `show`, which must not import torch
    from torch import Tensor

CLASSES = ("classification", "crossmodal")


@dataclass(frozen=True)
class Predictions:
    """Test-set predictions.

    Attributes:
        output: (N, C) logits, or (N,) predictions in the task's own unit.
        y: (N,) labels or targets in the task's own unit.
        teacher: (N, C) logits or (N,) predictions of the first teacher, None without one.
        emb: (N, D) embeddings, None where no metric asks for them.
        gallery: (M, D) embeddings of the training rows and their (M,) labels, the set retrieval searches.
    """

    output: Tensor
    y: Tensor
    teacher: Tensor | None = None
    emb: Tensor | None = None
    gallery: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        unit: None means the task's own unit.
        teacher: needs a teacher's predictions.
        retrieval: needs embeddings of test and training rows.
        high: the largest value there is, None without one; the smallest is 0.
        share: a share of the test items in percent, so that their number alone tells its noise.
        chance: of the test rows' targets the value of the best answer that ignores the input; None where that has no
            meaning.
    """

    higher_is_better: bool
    unit: str | None
    about: str
    kinds: tuple[str, ...]
    fn: Callable[[Predictions], Tensor]
    teacher: bool = False
    retrieval: bool = False
    high: float | None = None
    share: bool = False
    chance: Callable[[Sequence[float]], float] | None = None

    @property
    def bounds(self) -> tuple[float, float | None]:
        """The smallest and the largest value."""
        return (0.0, self.high)

    def noise(self, value: float, items: int | None) -> float | None:
        """Standard deviation of a value measured on so many test items; None where the items alone do not tell."""
        from kdbench.stats import item_noise

        return item_noise(value, items) if self.share and items else None

    def at_chance(self, value: float, chance: float, items: int | None) -> bool:
        """Whether a value is not told from, or worse than, that of an answer which ignores the input."""
        allowed = 2 * (self.noise(chance, items) or 0.0)
        return value <= chance + allowed if self.higher_is_better else value >= chance - allowed


def _most_frequent(y: Sequence[float], k: int) -> float:
    return 100 * sum(count for _, count in Counter(y).most_common(k)) / len(y)


def _entropy(y: Sequence[float]) -> float:
    return -sum(count / len(y) * math.log(count / len(y)) for count in Counter(y).values())


def _around_median(y: Sequence[float]) -> float:
    middle = statistics.median(y)
    return statistics.fmean(abs(value - middle) for value in y)


def _topk(p: Predictions, k: int) -> Tensor:
    k = min(k, p.output.shape[1])
    hit = (p.output.topk(k, dim=1).indices == p.y[:, None]).any(1)
    return 100 * hit.double().mean()


def _nll(p: Predictions) -> Tensor:
    return -p.output.double().log_softmax(1).gather(1, p.y[:, None]).mean()


def _ece(p: Predictions, bins: int = 15) -> Tensor:
    """Expected calibration error, equal-width bins of confidence (Guo et al., ICML 2017, eq. 3), in percent."""
    confidence, guess = p.output.double().softmax(1).max(1)
    right = (guess == p.y).double()
    place = (confidence * bins).long().clamp_(max=bins - 1)
    gap = confidence.new_zeros(bins).index_add_(0, place, right - confidence)
    return 100 * gap.abs().sum() / len(right)


def _mae(p: Predictions) -> Tensor:
    return (p.output.double() - p.y.double()).abs().mean()


def _rmse(p: Predictions) -> Tensor:
    return (p.output.double() - p.y.double()).square().mean().sqrt()


def _agreement(p: Predictions) -> Tensor:
    assert p.teacher is not None
    return 100 * (p.output.argmax(1) == p.teacher.argmax(1)).double().mean()


def _teacher_kl(p: Predictions) -> Tensor:
    assert p.teacher is not None
    teacher, student = p.teacher.double().log_softmax(1), p.output.double().log_softmax(1)
    return (teacher.exp() * (teacher - student)).sum(1).mean()


RETRIEVAL_BLOCK = 1024
"""Queries compared with the gallery at a time."""


def _unit(emb: Tensor) -> Tensor:
    return emb / emb.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _recall(p: Predictions, k: int) -> Tensor:
    """R@k: test items among whose k nearest training items (cosine similarity) one has their label, in percent."""
    assert p.emb is not None
    assert p.gallery is not None
    gallery = _unit(p.gallery[0])
    labels = p.gallery[1]
    hits = p.y.new_zeros(())
    for queries, y in zip(_unit(p.emb).split(RETRIEVAL_BLOCK), p.y.split(RETRIEVAL_BLOCK), strict=True):
        near = (queries @ gallery.T).topk(min(k, len(gallery)), dim=1).indices
        hits = hits + (labels[near] == y[:, None]).any(1).sum()
    return 100 * hits.double() / len(p.y)


def _percent(about: str, fn: Callable[[Predictions], Tensor], **more: Any) -> Metric:
    """A share of the test items."""
    return Metric(True, "%", about, CLASSES, fn, high=100.0, share=True, **more)


def _topk_metric(k: int, about: str) -> Metric:
    return _percent(about, partial(_topk, k=k), chance=partial(_most_frequent, k=k))


METRICS: dict[str, Metric] = {
    "top1": _topk_metric(1, "test items whose highest score is the label"),
    "top5": _topk_metric(5, "test items whose label is among the five highest scores"),
    "nll": Metric(False, "nat", "mean negative log-likelihood of the label", CLASSES, _nll, chance=_entropy),
    "ece": Metric(False, "%", "expected calibration error, 15 bins", CLASSES, _ece, high=100.0),
    "mae": Metric(False, None, "mean absolute error", ("regression",), _mae, chance=_around_median),
    "rmse": Metric(False, None, "root of the mean squared error", ("regression",), _rmse, chance=statistics.pstdev),
    **{
        f"recall{k}": _percent(
            f"test items with a training item of their label among the {k} nearest", partial(_recall, k=k),
            retrieval=True,
        )
        for k in (1, 5, 10)
    },
    "teacher_agreement": _percent("test items on which student and teacher agree", _agreement, teacher=True),
    "teacher_kl": Metric(False, "nat", "mean KL(teacher || student) on test items", CLASSES, _teacher_kl, True),
}  # fmt: skip


def score(names: list[str], predictions: Predictions) -> dict[str, float]:
    """Named metrics of test-set predictions; those that need a teacher or embeddings are left out without."""
    usable = [
        name
        for name in names
        if (predictions.teacher is not None or not METRICS[name].teacher)
        and (predictions.emb is not None or not METRICS[name].retrieval)
    ]
    return {name: float(METRICS[name].fn(predictions)) for name in usable}
