"""Semantic segmentation: a class at every pixel of a picture; networks give scores of classes on a map of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds import predicted
from kdbench.kinds.base import Evidence, Kind, Mark, Metric, Scaling, Tiny

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from kdbench.contract import Batch, Maps, Out, Rows

INK = 64
"""Grey value from which on a pixel of an embedded digit is the digit's."""


def _of(p: Evidence, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """A metric of the confusion matrix, in percent."""
    return 100 * fn(p.output.double())


def _overlaps(counts: Tensor) -> Tensor:
    """(K,) intersection over union of each class, NaN of one that neither truth nor answer holds.

    Args:
        counts: (K, K) pixels by their class and the class that was said.
    """
    hit = counts.diagonal()
    return hit / (counts.sum(0) + counts.sum(1) - hit)


def _mean_overlap(counts: Tensor) -> Tensor:
    return _overlaps(counts).nanmean()


def _right(counts: Tensor) -> Tensor:
    return counts.diagonal().sum() / counts.sum()


def _accuracies(counts: Tensor) -> Tensor:
    """(K,) share of each class's pixels that are right, NaN of one that is not there."""
    return counts.diagonal() / counts.sum(1)


def _mean_right(counts: Tensor) -> Tensor:
    return _accuracies(counts).nanmean()


def _metric(about: str, word: str, fn: Callable[[Tensor], Tensor]) -> Metric:
    return Metric(True, "%", about, partial(_of, fn=fn), high=100.0, word=word, column=True)


def confused(logits: Tensor, labels: Tensor) -> Tensor:
    """(K, K) pixels by class and answer, of those that are not ignored.

    Args:
        logits: (N, K, h, w), brought to the pictures' size, bilinear; of equal scores the first class is the answer.
        labels: (N, H, W) classes.
    """
    return counted(enlarged(logits, labels).argmax(1), labels, logits.shape[1])


def counted(said: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, K) pixels by class and answer of (N, H, W) answers, of those that are not ignored."""
    import torch

    from kdbench.contract.maps import IGNORED

    known = labels != IGNORED
    pairs = labels[known].long() * classes + said[known].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, K, H, W) scores of (N, H, W) pixels from those of cells, bilinear."""
    from torch.nn.functional import interpolate

    if logits.shape[2:] == labels.shape[1:]:
        return logits
    return interpolate(logits, labels.shape[1:], mode="bilinear")


def _inked(pixels: Tensor, digits: Tensor) -> Maps:
    """A digit's class where its ink is, 0 elsewhere."""
    import torch

    from kdbench.contract import Maps

    ink = pixels[:, 0] >= INK
    return Maps(torch.where(ink, 1 + digits[:, None, None], 0).to(torch.uint8))


class Segmentation(Kind):
    """Targets are :class:`Maps`; the loss is the cross-entropy of the pixels, to whose number scores are brought."""

    name = "segmentation"
    about = "the class of every pixel of a picture"
    metrics: ClassVar = {
        "miou": _metric("intersection over union, mean of the classes that are there", "mIoU", _mean_overlap),
        "pixel_accuracy": _metric("share of the pixels whose class is right", "pixel accuracy", _right),
        "class_accuracy": _metric("share of a class's pixels that are right, mean", "class accuracy", _mean_right),
    }
    tiny = Tiny("miou", _inked, classes=11, wraps="semfpn_c8s2-4:")
    lacks = frozenset(
        {"emb", "code", "classifier", "tail", "dense", "fpn", "cls", "box", "quality", "anchors", "assigned", "head"}
    )
    placed = True

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import Maps

        return None if isinstance(train.y, Maps) else "targets that are no maps"

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        from kdbench.contract.maps import IGNORED

        for part, rows in (("training", train), ("test", test)):
            if bool((rows.y.labels == IGNORED).all()):
                return f"every pixel of the {part} rows is ignored; change the data, or `ignore` of their file"
        return None

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """Mean over all pixels of a batch, those that are ignored with 0: so it is a mean over pictures, too."""
        from torch.nn.functional import cross_entropy

        from kdbench.contract.maps import IGNORED

        labels = batch.y.labels
        gaps = cross_entropy(enlarged(out.logits, labels), labels.long(), ignore_index=IGNORED, reduction="none")
        return gaps.mean()

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """(K, K) counts, for scores of all pixels would not fit into memory."""
        return confused(out.logits.float(), batch.y.labels)

    def joined(self, answers: Sequence[Any]) -> Any:
        import torch

        return torch.stack(list(answers)).sum(0)

    def blank(self, came: Tensor, content: Tensor, size: tuple[int, int]) -> Any:
        import torch

        from kdbench.contract import Maps

        return Maps(torch.zeros(len(came), *size, dtype=torch.uint8))

    def entries(self, seen: Any) -> predicted.Entries:
        return predicted.of_maps(seen)

    def answered_by(self, entries: predicted.Entries, y: Any, classes: int) -> Any:
        """Pixels of no region are of the first class, as of equal scores."""

        said = predicted.to_maps(entries, tuple(y.labels.shape[1:]), 0)
        return counted(said.to(y.labels.device), y.labels, classes)

    def by_class(self, name: str, evidence: Evidence) -> dict[int, float]:
        shares = {"miou": _overlaps, "class_accuracy": _accuracies}
        if name not in shares:
            return {}
        found = enumerate((100 * shares[name](evidence.output.double())).tolist())
        return {label: value for label, value in found if value == value}  # NaN of a class that is not there

    def looked(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """(N, H, W) classes that pixels are said to be of, those that are ignored among them."""
        from kdbench.contract.maps import IGNORED

        labels = batch.y.labels
        return enlarged(out.logits.float(), labels).argmax(1).masked_fill(labels == IGNORED, IGNORED)

    def marked(self, seen: Any, y: Any) -> list[tuple[list[Mark], list[Mark]]]:
        """Outlines of the regions of every class but the one that most pixels of a picture are of."""
        import numpy as np

        from kdbench.contract.maps import IGNORED

        made = []
        for there, found in zip(y.labels.cpu().numpy(), seen.cpu().numpy(), strict=True):
            ground = int(np.bincount(there.ravel(), minlength=IGNORED + 1)[:IGNORED].argmax())
            made.append((_regions(there, ground), _regions(found, ground)))
        return made


def _regions(labels: NDArray[Any], ground: int) -> list[Mark]:
    """Outlines of (H, W) classes, of what is neither ignored nor ``ground``."""
    import numpy as np

    from kdbench.contract.maps import IGNORED
    from kdbench.kinds.outlines import longest, outlines

    lines = [
        (int(label), points)
        for label in np.unique(labels)
        if label not in (ground, IGNORED)
        for points in outlines(labels == label)
    ]
    return [Mark(label, points) for label, points in longest(lines)]


KIND = Segmentation()
