"""What kinds of sentences share: targets are symbols of a vocabulary, and networks answer for each, and may write."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from kdbench.kinds.base import FEW_POINTS, Evidence, Kind, Metric, Scaling

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Network, Out, Rows, Vocabulary

WRITTEN = frozenset({"chrf", "bleu", "exact"})
"""Metrics of what networks write."""
LENGTHS = "sentences of a batch differ in length from the next one's"


@dataclass(frozen=True)
class Answers:
    """What a network said of some sentences.

    Attributes:
        nll: -log p of their symbols, summed, in nats.
        count: of these symbols.
        written: symbols of what it wrote, a list a sentence; None where no metric reads it.
    """

    nll: float
    count: int
    written: list[list[int]] | None


def token_nll(p: Evidence) -> Tensor:
    """Mean -log p of a symbol, in nats."""
    import torch

    return torch.tensor(p.output.nll / p.output.count, dtype=torch.float64)


def bits_per_byte(p: Evidence) -> Tensor:
    """-log2 p of all symbols over the bytes of the texts, whatever they were cut into."""
    import torch

    return torch.tensor(p.output.nll / math.log(2) / max(1, len(p.y.texts.values)), dtype=torch.float64)


class WrittenKind(Kind):
    """Targets are :class:`Sentences`; the loss is the cross-entropy, a mean over their real symbols.

    Args:
        smoothing: share of each target that the loss spreads evenly over all symbols (``train.label_smoothing``).
    """

    also: ClassVar[frozenset[str]] = frozenset({"classification"})
    lacks: ClassVar[frozenset[str]] = frozenset({
        "maps", "preact", "stem", "code", "attention", "classifier", "norm", "tail", "present", "teacher_input",
        "values",
    })  # fmt: skip
    one_process = "its batches hold another number of predictions in every process"
    eager = LENGTHS
    viewless: ClassVar[str | None] = "a sentence has one"
    smoothing: float = 0.0

    def smoothed(self, share: float) -> Self:
        import copy

        found = copy.copy(self)
        found.smoothing = share
        return found

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import Sentences

        return None if isinstance(train.y, Sentences) else "no sentences"

    def scaled(self, y: Any, scaling: Scaling) -> Any:
        return y.numbered()

    def loss(self, out: Out, batch: Batch) -> Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(out.logits, batch.y, label_smoothing=self.smoothing)

    def answered(self, net: Network, batch: Batch, scaling: Scaling, names: Sequence[str]) -> Answers:
        import torch.nn.functional as F

        nll = float(F.cross_entropy(net(batch).logits.double(), batch.y, reduction="sum"))
        return Answers(nll, len(batch), self.write(net, batch) if WRITTEN & set(names) else None)

    def write(self, net: Network, batch: Batch) -> list[list[int]]:
        """What a network writes for a batch, under the task's rules."""
        raise NotImplementedError

    def joined(self, answers: Sequence[Answers]) -> Answers:
        written = [row for one in answers for row in one.written or []]
        there = all(one.written is not None for one in answers)
        return Answers(sum(one.nll for one in answers), sum(one.count for one in answers), written if there else None)


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted({*"".join(NAMES)})
SHADES = 16


def letters(pixels: Tensor, digits: Tensor) -> Rows:
    """Embedded digits as sentences: the brightness of the columns is read, the digit's name is spelled."""
    import torch

    from kdbench.contract import Rows, Sentences
    from kdbench.contract.sentences import SPECIAL

    read = pixels.float().mean(dim=(1, 2)) * SHADES // 256 + SPECIAL
    said = [NAMES[int(digit)] for digit in digits]
    symbols = [[SPECIAL + LETTERS.index(letter) for letter in name] for name in said]
    return Rows({"source": read.to(torch.int32)}, Sentences.of(symbols, said, "".join(LETTERS).encode()))


def alphabets() -> dict[str, Vocabulary]:
    """Of :func:`letters`."""
    from kdbench.contract import Vocabulary
    from kdbench.contract.sentences import SPECIAL

    unknown = "0" * 64
    return {"source": Vocabulary(SPECIAL + SHADES, unknown), "target": Vocabulary(SPECIAL + len(LETTERS), unknown)}


def share_metric(fn: Callable[[Evidence], Tensor], about: str, word: str, **more: Any) -> Metric:
    """A metric in percent."""
    return Metric(True, "%", about, fn, high=100.0, word=word, column=True, curve_points=FEW_POINTS, **more)


NLL = Metric(False, "nat", "mean negative log-likelihood of a symbol", token_nll, word="NLL a token")


def ruled(metrics: Mapping[str, Metric], fns: Mapping[str, Callable[..., Tensor]], rules: Any) -> dict[str, Metric]:
    """Metrics whose functions follow a task's rules."""
    from dataclasses import replace

    return {
        name: replace(metric, fn=partial(fns[name], rules=rules)) if name in fns else metric
        for name, metric in metrics.items()
    }
