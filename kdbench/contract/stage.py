"""A stage of training: its losses or step, its parameters, views and length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdbench.contract.batch import At, Batch, Rows
from kdbench.contract.patches import Hide


@dataclass(frozen=True)
class Views:
    """Several views of each row.

    Attributes:
        n: number of views.
        fn: (pixels (N, C, H, W), generator) -> (n, N, C, H, W). ``raw`` pixels are uint8 before the task's
            augmentation, which is then drawn anew for each view; ``final`` ones are augmented and normalised float.
            Where steps are captured it is part of them: then the host reads no tensor in it.
        where: which of the two.
        replaces: augmentations of the task that ``fn`` takes over, e.g. ``("flip",)``.
        input: the input it is applied to.
        host: ``fn`` works on CPU pixels and is run in worker processes ahead of time (PIL operations); ``raw`` only.
        anew: the views differ by the task's augmentation alone, and a stored picture is cropped by itself for each of
            them; ``fn`` repeats pixels that are no stored ones. ``raw`` only.
        hide: patches that networks do not see, drawn for each view (``Batch.visible``); None where they see all.
    """

    n: int
    fn: Callable[[Tensor, torch.Generator], Tensor]
    where: Literal["raw", "final"] = "final"
    replaces: tuple[str, ...] = ()
    input: str = "image"
    host: bool = False
    anew: bool = False
    hide: Hide | None = None

    def __post_init__(self) -> None:
        if self.host and self.where != "raw":
            raise ValueError("views made on the host are views of raw pixels; set where to 'raw'")
        if self.anew and (self.host or self.where != "raw"):
            raise ValueError("views that are drawn anew are views of raw pixels, not made on the host")


@dataclass(frozen=True)
class Group:
    """Parameters that share an optimiser.

    Attributes:
        name: unique within a stage.
        params: the parameters.
        optimizer: settings that differ from the task's optimiser, e.g. ``{"weight_decay": 1e-5}``. With a ``name``
            other than the task's it starts from that optimiser's defaults, e.g. ``{"name": "adam", "lr": 1e-3}``.
        schedule: ``task`` follows the task's learning-rate schedule, ``constant`` does not; or the fractions of the
            stage after each of which the rate is divided by 10.
    """

    name: str
    params: Sequence[nn.Parameter]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["task", "constant"] | tuple[float, ...] = "task"


class Terms(dict[str, Tensor]):
    """Named terms of a step, and what ``after_step`` needs of how they were computed and finds in ``batch.handed``.

    Args:
        terms: by name.
        handed: tensors in any container; without gradients, and of several processes from gathered rows.
    """

    def __init__(self, terms: Mapping[str, Tensor], handed: Any = None) -> None:
        super().__init__(terms)
        self.handed = handed


Partners = Callable[[Tensor, torch.Generator], Tensor]
"""``partners(rows, rng)``: to (N,) numbers of training rows as many others, each a partner's; all on the CPU."""
Losses = Callable[[Batch, At], "dict[str, Tensor]"]
Update = Callable[..., None]
"""``update(loss, group=None)``: zero-grad, backward and step of one named group, or of all groups of the stage."""
Step = Callable[[Callable[[], Batch], At, Update], "dict[str, Tensor]"]
"""``step(draw, at, update)``: an update that needs several batches or backward passes; returns terms to log."""


@dataclass(frozen=True)
class Stage:
    """One part of a method's training, with losses, parameters and a length of its own.

    Attributes:
        name: unique within the method, a slug.
        losses: named terms, already weighted, summed by the engine; what varies by step lies in tensors or ``at``; or
        step: the whole update, when one sum is not enough. Exactly one of the two.
        groups: parameters it trains; empty where its ``step`` sets weights without an optimiser.
        epochs, steps: its length; exactly one of the two.
        batch: rows of a batch, the task's when None.
        extra: raw rows trained on beside the task's own, e.g. generated ones.
        targets: what its rows are trained on in the place of their own targets, a row each.
        views: several views of each row; or
        partners: draws a second row for each row of a batch, which is the batch's second view, augmented by itself.
        ledger: line of the cost ledger it belongs to (``distill``, ``generator_train``, ``generate``, ``bank_init``,
            ``warmup_phase``, ``peer_students``, ``finetune``, ``teacher_train``, ``teacher_cache``).
        once: what it makes can be reused by other students of the task.
    """

    name: str
    groups: Sequence[Group]
    losses: Losses | None = None
    step: Step | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    extra: Rows | None = None
    targets: Any = None
    views: Views | None = None
    partners: Partners | None = None
    ledger: str = "distill"
    once: bool = False

    def __post_init__(self) -> None:
        if (self.losses is None) == (self.step is None):
            raise ValueError(f"stage {self.name!r}: give exactly one of losses and step")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage {self.name!r}: give exactly one of epochs and steps")
        if self.views is not None and self.partners is not None:
            raise ValueError(f"stage {self.name!r}: give views or partners, not both")
