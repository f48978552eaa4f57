"""Where weights come from, as a task names it: a file, the model hub, or the net itself. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdbench.specs.pair import AUTO, FEATURES, PART, PRUNED
from kdbench.specs.task import TaskSpec

TIMM, OWN, HUB = "timm", "own", "hub:"
SHIPPED = (OWN, TIMM)
"""Weights that come with the net: of a module that was given, or those that a library ships; ``timm`` for its nets."""


@dataclass(frozen=True)
class Origin:
    """Weights by name.

    Attributes:
        text: as it was written.
        source: without ``#part=`` and ``#features``.
        features: the classifier is left as it is.
        part: of the file, None where the weights are looked for in all of it.
    """

    text: str
    source: str
    features: bool
    part: str | None = None

    @classmethod
    def of(cls, text: str) -> Origin:
        """What a key such as ``pair.student.weights`` names."""
        named, mark, _ = text.partition(FEATURES)
        source, _, part = named.partition(PART)
        return cls(text, source, bool(mark), part or None)

    @property
    def path(self) -> Path | None:
        """The file, ``~`` resolved; None for weights of the hub, of timm or of a teacher, and for ``auto``."""
        named = self.source in (*SHIPPED, AUTO) or self.source.startswith((HUB, PRUNED))
        return None if named else Path(self.source).expanduser()


def weights_of(spec: TaskSpec) -> dict[str, Origin]:
    """Task key to the weights it names: the student's, each teacher's, and those that a teacher's training starts from.

    A teacher that is trained here (``weights: auto``) names none of its own.
    """
    named = {"pair.student.weights": spec.pair.student.weights}
    for role, teacher in spec.pair.teachers.items():
        named[f"pair.teachers.{role}.weights"] = None if teacher.weights == AUTO else teacher.weights
        named[f"pair.teachers.{role}.init"] = teacher.init
    return {key: Origin.of(text) for key, text in named.items() if text is not None}


def weight_files(spec: TaskSpec) -> dict[str, Path]:
    """Task key to the file it names: every file of weights that decides what a run of the task gives.

    Files need not exist. Weights of the hub and of timm are known by their names.
    """
    return {key: origin.path for key, origin in weights_of(spec).items() if origin.path is not None}
