"""The networks of a run, and what training a teacher cost."""

from __future__ import annotations

from typing import Literal

from kdbench.base.fields import Amount, Basis, Count, Part, Positive, Sha256, Slug, Word


class Net(Part):
    """A network. ``weights_sha256``: the weights it started from; ``val_metric``: its own primary metric, if known."""

    arch: Word
    source: Word
    params: Positive | None = None
    weights_sha256: Sha256 | None = None
    val_metric: float | None = None


class TrainingCost(Part):
    """What training a teacher cost, once for all methods that use it."""

    device_h: Amount
    steps: Count | None = None
    energy_kwh: Amount | None = None
    basis: Basis


class Teacher(Net):
    """A teacher under the role the task gives it.

    ``trained_metric``: its primary metric after the method trained it on, ``val_metric`` being that of before; None
    where it stayed as it was.
    """

    role: Slug
    seed: Count | None = None
    training: TrainingCost | None = None
    trained_metric: float | None = None


class Ensemble(Part):
    """All teachers read as one; ``val_metric`` is its own primary metric."""

    rule: Literal["mean"]
    val_metric: float


class Models(Part):
    """All networks of the run; ``peers`` are students beside the first."""

    student: Net
    teachers: tuple[Teacher, ...] = ()
    ensemble: Ensemble | None = None
    peers: tuple[Net, ...] = ()
