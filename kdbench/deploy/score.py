"""Scores of a network's answers: by the metrics of the task's kind, on raw rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.progress import Progress
from kdbench.contract import Batch, Out, Rows
from kdbench.data.feed.loader import RawInOrder
from kdbench.deploy import rows
from kdbench.deploy.about import About
from kdbench.deploy.module import Deployed
from kdbench.kinds.base import DATABASE, Evidence, Scaling

Answers = Callable[[Tensor], Tensor]


class Sheet:
    """Collects answers batch by batch and scores them, or is searched by those of another.

    Args:
        about: of the network that answers.
        y: (N,) targets of all rows, in the task's own unit.
    """

    def __init__(self, about: About, y: Any) -> None:
        self._kind = kinds.kind(about.kind).ruled(about.rules)
        answer = about.answer
        self._scaling, self._scaled = Scaling(answer.offset, answer.scale), answer.range is not None
        self._scored, self._y = about.scored, y
        self._answers: list[Any] = []

    def add(self, index: Tensor, answers: Any) -> None:
        """Answers for some rows, in the task's unit; of networks that no graph holds, what the kind keeps of them."""
        if self._kind.unwritten is not None:
            self._answers.append(answers)
            return
        given = (answers - self._scaling.offset) / self._scaling.scale if self._scaled else answers
        out = Out(**{"logits": None, self._kind.gives: given})
        batch = Batch({}, self._kind.scaled(self._y[index], self._scaling), index)
        self._answers.append(self._kind.answer(out, batch, self._scaling))

    @property
    def _told(self) -> tuple[Any, Any]:
        """All answers, and the targets."""
        return self._kind.joined(self._answers), self._y

    def metrics(self, searched: Sheet | None = None) -> dict[str, float]:
        """The task's metrics, primary first, as far as the answers and those for the training rows tell them."""
        database = None if searched is None else searched._told
        evidence = Evidence(*self._told, database=database, k=self._scored.k)
        return self._kind.score([self._scored.primary, *self._scored.also], evidence)


def score(
    about: About, answers: Sequence[Answers], given: Rows, progress: Progress, doing: str, searched: Rows | None = None
) -> tuple[list[dict[str, float]], float]:
    """Metrics of several that answer for the same rows, and the largest difference between the first and the others.

    Args:
        answers: from raw rows (N, ...) to answers, as of :class:`kdbench.deploy.module.Deployed`.
        given: raw rows, with the one input that is asked for.
        doing: what the bar says.
        searched: raw training rows that the metrics search, None where they search none.

    Returns:
        Metrics of each; and the largest of |a - b| / (1 + |b|) over all answers a of others and b of the first.
    """
    sheets, worst = _filled(about, answers, given, progress, doing)
    if searched is None:
        return [sheet.metrics() for sheet in sheets], worst
    databases, most = _filled(about, answers, searched, progress, f"{doing}: training rows")
    return [sheet.metrics(database) for sheet, database in zip(sheets, databases, strict=True)], max(worst, most)


def _filled(
    about: About, answers: Sequence[Answers], given: Rows, progress: Progress, doing: str
) -> tuple[list[Sheet], float]:
    """A sheet each of answers for rows, and the largest difference."""
    sheets, worst = [Sheet(about, given.y) for _ in answers], 0.0
    batches = RawInOrder(given)
    with torch.no_grad(), progress.bar(doing, len(batches)) as advance:
        for index, raw in batches:
            said = [_asked(about, answer, raw) for answer in answers]
            for sheet, one in zip(sheets, said, strict=True):
                sheet.add(index, one)
            worst = max([worst, *(_apart(one, said[0]) for one in said[1:])])
            advance()
    return sheets, worst


def _asked(about: About, answer: Answers, raw: Rows) -> Any:
    """What one answers for a batch of raw rows."""
    x = raw.x[about.raw.name]
    if isinstance(answer, Deployed) and answer.kind.unwritten is not None:
        return answer.answered(x, raw.y)
    return answer(x)


def _apart(a: Any, b: Any) -> float:
    """Infinite where shapes differ or something is not a number."""
    if not isinstance(a, Tensor):
        pairs = [(getattr(a, name), getattr(b, name)) for name in vars(a)]
        return max((_apart(one, other) for one, other in pairs if isinstance(one, Tensor)), default=0.0)
    if a.shape != b.shape:
        return float("inf")
    apart = ((a - b).abs() / (1 + b.abs())).max().item() if b.numel() else 0.0
    return apart if apart == apart else float("inf")


def searches(about: About) -> bool:
    """Whether what a network is scored by searches the training rows."""
    scored = about.scored
    return any(DATABASE in kinds.metrics()[name].reads for name in (scored.primary, *scored.also))


def require_told(about: About) -> None:
    """Raises UserError where a network's score takes more than itself and the rows of its task."""
    primary = about.scored.primary
    if not (metric := kinds.metrics()[primary]).alone:
        raise UserError(
            f"{about.words}: the network and the rows of its task alone do not tell {primary}, which reads "
            f"{', '.join(sorted(metric.reads))}; a task that scores another metric beside it is scored again by that"
        )


@dataclass(frozen=True)
class OnFolder:
    """How a network does on a labelled folder.

    Attributes:
        metrics: by name, primary first.
        rows: of each class, in the order of the network's; of a regression all in one.
    """

    metrics: Mapping[str, float]
    rows: tuple[int, ...]


def score_folder(module: Deployed, folder: Path, progress: Progress, searched: Rows | None = None) -> OnFolder:
    """Scores a network on a labelled folder of the form that its task's own data have.

    Args:
        searched: as of :func:`score`.

    Raises:
        UserError: as :func:`kdbench.deploy.rows.labelled`; or scoring takes more than the network and these rows.
    """
    about = module.about
    require_told(about)
    if searched is None and searches(about):
        raise UserError(
            f"{about.words}: {about.scored.primary} searches the training rows, which no file holds; name the run"
        )
    with tempfile.TemporaryDirectory(prefix="kdbench-") as scratch:
        given = rows.labelled(about, folder, Path(scratch), progress)
        (metrics,), _ = score(about, [module], given, progress, f"scoring {folder.name}", searched)
    counts = torch.bincount(given.y, minlength=about.answer.outputs) if about.answer.range is None else None
    return OnFolder(metrics, tuple(counts.tolist()) if counts is not None else (len(given.y),))
