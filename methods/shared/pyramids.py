"""Feature pyramids of two detectors, level by level, and the method that adds a term on them to the task's own loss.

What is compared may also be other maps of two networks: the class scores of nets of segmentation, or a last stage.

Shapes: N pictures, C channels, levels l from fine to coarse with maps of h_l x w_l cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from kdbench.contract import At, Batch, Method, Needs, Network, NotApplicable, Out

Pairs = list[tuple[Tensor, Tensor]]
"""Student and teacher maps, fine to coarse; the teacher's are constants."""
ORIENTED = frozenset({"oriented"})
"""Kinds of task whose boxes are turned."""
DETECTORS = frozenset({"detection"})
"""Kinds of task whose boxes are not."""
PYRAMIDS = DETECTORS | ORIENTED
"""Kinds of task whose networks have a pyramid."""
MAPPED = PYRAMIDS | {"segmentation"}
"""Kinds of task whose methods compare maps, whichever these are."""
ACROSS_ROWS = "its statistics are of all pictures of a batch"


def level_pairs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Pairs:
    """Levels of two pyramids with equal map sizes, fine to coarse.

    Pyramids of one number of levels with maps of one size each are paired as they are; of others, such as those of a
    student that sees a smaller picture, the levels whose maps have one size.

    Raises:
        NotApplicable: no level of one has the size of a level of the other.
    """
    constants = [t.detach() for t in teacher]
    if [s.shape[2:] for s in student] == [t.shape[2:] for t in teacher]:
        return list(zip(student, constants, strict=True))
    sizes = {t.shape[2:]: t for t in reversed(constants)}
    pairs = [(s, sizes[s.shape[2:]]) for s in student if s.shape[2:] in sizes]
    if not pairs:
        own, theirs = (", ".join("x".join(map(str, m.shape[2:])) for m in maps) for maps in (student, teacher))
        raise NotApplicable(f"maps are paired by size; the student's are {own}, the teacher's {theirs}")
    return pairs


def proposed(out: Out, target: Out, teacher: Network) -> tuple[Tensor, Tensor]:
    """(R, K + 1) logits of both networks' second stages on the proposals of the student's loss."""
    return out.dense.roi, teacher.roi_head(target.dense.fpn, out.dense.proposals)


def same_channels(pairs: Pairs) -> None:
    """Raises :class:`NotApplicable` where a level of the student is not as wide as the teacher's."""
    for s, t in pairs:
        if s.shape[1] != t.shape[1]:
            raise NotApplicable(
                f"it compares channels one by one, the student's pyramid has {s.shape[1]} and the teacher's "
                f"{t.shape[1]}; set one width for both in pair.student.net_options"
            )


def aligned(student: Tensor, teacher: Tensor) -> nn.Module:
    """A 1x1 convolution with bias to the teacher's channels; nothing where both have equally many."""
    own, theirs = student.shape[1], teacher.shape[1]
    return nn.Identity() if own == theirs else nn.Conv2d(own, theirs, 1)


def features(hp: Any) -> str:
    """The word of ``Needs`` for what a method compares."""
    found: str = getattr(hp, "features", "fpn")
    return found


def compared(out: Out, word: str) -> Sequence[Tensor]:
    """What a method compares of a network: all levels of the pyramid, class scores, or the last stage's map."""
    if word == "fpn":
        return out.dense.fpn
    return [out.logits] if word == "logits" else out.maps[-1:]


class PyramidMethod(Method, ABC):
    """The task's own loss, and terms of the student's pyramid and the teacher's, of which no head runs.

    A method whose hyper-parameter ``features`` says so compares other maps: ``logits``, or ``maps``, of which the last
    stage's.

    Attributes:
        kinds: of tasks it runs on.
        batch_needs: what it reads of a batch beside the pictures.
        min_batch, one_process: see :class:`Needs`.
    """

    kinds: ClassVar[frozenset[str]] = DETECTORS
    batch_needs: ClassVar[frozenset[str]] = frozenset()
    min_batch: ClassVar[int] = 1
    one_process: ClassVar[str | None] = None

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            kinds=cls.kinds,
            inputs="same",
            student=frozenset({features(hp)}),
            teacher=frozenset({features(hp)}),
            batch=cls.batch_needs,
            min_batch=cls.min_batch,
            one_process=cls.one_process,
        )

    def setup(self) -> None:
        self.build(self.pairs(self.task.probe(self.student), self.task.probe(self.teacher)))

    def pairs(self, out: Out, target: Out) -> Pairs:
        """The maps it compares."""
        return level_pairs(*(compared(one, features(self.hp)) for one in (out, target)))

    def build(self, pairs: Pairs) -> None:
        """Makes its modules, sized by maps of two pictures; a method without any leaves this as it is."""

    @abstractmethod
    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        """The method's own terms, 0-d and weighted."""

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, target = self.student(batch), self.teacher(batch)
        return {"task": self.task.loss(out, batch), **self.imitation(self.pairs(out, target), batch, at)}
