"""Classification: a class a row; networks give a score a class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds.base import RETRIEVAL, Evidence, Kind, Metric, Tiny

if TYPE_CHECKING:  # `list` and `show` read the metrics, and must not import torch
    from torch import Tensor

    from kdbench.contract import Batch, Out, Rows

TEACHER = frozenset({"teacher"})


def _most_frequent(y: Sequence[float], k: int) -> float:
    return 100 * sum(count for _, count in Counter(y).most_common(k)) / len(y)


def _entropy(y: Sequence[float]) -> float:
    return -sum(count / len(y) * math.log(count / len(y)) for count in Counter(y).values())


def _right(p: Evidence, k: int) -> Tensor:
    k = min(k, p.output.shape[1])
    return (p.output.topk(k, dim=1).indices == p.y[:, None]).any(1)


def _topk(p: Evidence, k: int) -> Tensor:
    return 100 * _right(p, k).double().mean()


def _nlls(p: Evidence) -> Tensor:
    return -p.output.double().log_softmax(1).gather(1, p.y[:, None]).squeeze(1)


def _nll(p: Evidence) -> Tensor:
    return _nlls(p).mean()


def _ece(p: Evidence, bins: int = 15) -> Tensor:
    """Expected calibration error, equal-width bins of confidence (Guo et al., ICML 2017, eq. 3), in percent."""
    confidence, guess = p.output.double().softmax(1).max(1)
    right = (guess == p.y).double()
    place = (confidence * bins).long().clamp_(max=bins - 1)
    gap = confidence.new_zeros(bins).index_add_(0, place, right - confidence)
    return 100 * gap.abs().sum() / len(right)


def _agree(p: Evidence) -> Tensor:
    assert p.teacher is not None
    return p.output.argmax(1) == p.teacher.argmax(1)


def _agreement(p: Evidence) -> Tensor:
    return 100 * _agree(p).double().mean()


def _teacher_kls(p: Evidence) -> Tensor:
    assert p.teacher is not None
    teacher, student = p.teacher.double().log_softmax(1), p.output.double().log_softmax(1)
    return (teacher.exp() * (teacher - student)).sum(1)


def _teacher_kl(p: Evidence) -> Tensor:
    return _teacher_kls(p).mean()


RETRIEVAL_BLOCK = 1024
"""Queries compared with the gallery at a time."""


def _unit(emb: Tensor) -> Tensor:
    return emb / emb.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _hits(p: Evidence, k: int) -> Tensor:
    """(N,) whether one of the k nearest training items of a test item (cosine similarity) has its label."""
    import torch

    assert p.emb is not None
    assert p.gallery is not None
    gallery = _unit(p.gallery[0])
    labels = p.gallery[1]
    hits = []
    for queries, y in zip(_unit(p.emb).split(RETRIEVAL_BLOCK), p.y.split(RETRIEVAL_BLOCK), strict=True):
        near = (queries @ gallery.T).topk(min(k, len(gallery)), dim=1).indices
        hits.append((labels[near] == y[:, None]).any(1))
    return torch.cat(hits)


def _percent(about: str, fn: Callable[[Evidence], Tensor], **more: Any) -> Metric:
    """A share of the test items."""
    return Metric(True, "%", about, fn, high=100.0, share=True, **more)


def _recall(k: int) -> Metric:
    """R@k, in percent."""
    hits = partial(_hits, k=k)
    return _percent(
        f"test items with a training item of their label among the {k} nearest",
        lambda p: 100 * p.once(hits).sum().double() / len(p.y),
        reads=RETRIEVAL,
        each=lambda p: p.once(hits),
    )


def _topk_metric(k: int, about: str) -> Metric:
    chance, right = partial(_most_frequent, k=k), partial(_right, k=k)
    return _percent(about, partial(_topk, k=k), chance=chance, word=f"Top-{k}", each=right)


class Classification(Kind):
    """Targets are (N,) int64 classes; the loss is the cross-entropy."""

    name = "classification"
    about = "a class a row"
    class_a_row = True
    metrics: ClassVar = {
        "top1": _topk_metric(1, "test items whose highest score is the label"),
        "top5": _topk_metric(5, "test items whose label is among the five highest scores"),
        "nll": Metric(
            False, "nat", "mean negative log-likelihood of the label", _nll, chance=_entropy, word="NLL", each=_nlls
        ),
        "ece": Metric(False, "%", "expected calibration error, 15 bins", _ece, high=100.0, word="ECE"),
        **{f"recall{k}": _recall(k) for k in (1, 5, 10)},
        "teacher_agreement": _percent(
            "test items on which student and teacher agree", _agreement, reads=TEACHER, each=_agree
        ),
        "teacher_kl": Metric(
            False, "nat", "mean KL(teacher || student) on test items", _teacher_kl, reads=TEACHER, each=_teacher_kls
        ),
    }
    tiny = Tiny("top1", lambda pixels, digits: digits)

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import Sentences

        if isinstance(train.y, Sentences):
            return "sentences"
        return "a number to predict" if label_range is not None else None

    def loss(self, out: Out, batch: Batch) -> Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(out.logits, batch.y)


KIND = Classification()
