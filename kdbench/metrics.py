"""Metrics: direction, unit, and the function of test-set predictions behind each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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

    ``unit`` None means the task's own unit. ``teacher`` marks those that need a teacher's predictions, ``retrieval``
    those that need embeddings of test and training rows.
    """

    higher_is_better: bool
    unit: str | None
    about: str
    kinds: tuple[str, ...]
    fn: Callable[[Predictions], Tensor]
    teacher: bool = False
    retrieval: bool = False


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


METRICS: dict[str, Metric] = {
    "top1": Metric(True, "%", "test items whose highest score is the label", CLASSES, lambda p: _topk(p, 1)),
    "top5": Metric(
        True, "%", "test items whose label is among the five highest scores", CLASSES, lambda p: _topk(p, 5)
    ),
    "nll": Metric(False, "nat", "mean negative log-likelihood of the label", CLASSES, _nll),
    "ece": Metric(False, "%", "expected calibration error, 15 bins", CLASSES, _ece),
    "mae": Metric(False, None, "mean absolute error", ("regression",), _mae),
    "rmse": Metric(False, None, "root of the mean squared error", ("regression",), _rmse),
    **{
        f"recall{k}": Metric(
            True,
            "%",
            f"test items with a training item of their label among the {k} nearest",
            CLASSES,
            partial(_recall, k=k),
            retrieval=True,
        )
        for k in (1, 5, 10)
    },
    "teacher_agreement": Metric(True, "%", "test items on which student and teacher agree", CLASSES, _agreement, True),
    "teacher_kl": Metric(False, "nat", "mean KL(teacher || student) on test items", CLASSES, _teacher_kl, True),
}


def score(names: list[str], predictions: Predictions) -> dict[str, float]:
    """Named metrics of test-set predictions; those that need a teacher or embeddings are left out without."""
    usable = [
        name
        for name in names
        if (predictions.teacher is not None or not METRICS[name].teacher)
        and (predictions.emb is not None or not METRICS[name].retrieval)
    ]
    return {name: float(METRICS[name].fn(predictions)) for name in usable}
