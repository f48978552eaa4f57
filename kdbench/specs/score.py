"""What a task reports (``score``): metrics, their rules, and further test sets. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from kdbench import kinds
from kdbench.base.errors import nearest
from kdbench.base.fields import Slug, tame
from kdbench.specs.block import Grown
from kdbench.specs.external import External
from kdbench.specs.protocol import Train


class Score(Grown):
    """What is reported. ``primary`` ranks.

    ``unit``: that of the targets, for metrics in the targets' own unit; the others have theirs and need none.
    ``k``: of metrics that search training rows, how many of the first found count; unset, all do.
    ``curve_points``: at how many points of a run's curve the primary metric is computed at most, spread evenly, the
    last among them; unset, as the metric says.
    ``finetune``: how the deployed network is trained on with labels for ``finetune``, keys as of ``train``; a protocol
    of its own, no part of what the method costs.
    ``rules``: how answers are made and counted, of kinds that have rules, such as a detection's thresholds; unset, as
    the kind says. ``external``: further test sets by name, scored by the primary metric and shown beside it, never
    ranked by; a task may gain some without a new version, for they change no other number.
    """

    LATER = ("k", "curve_points", "rules", "finetune")
    BESIDE = ("external",)

    primary: str
    unit: Annotated[str, StringConstraints(max_length=12)] = ""
    report: Literal["last"] = "last"
    also: list[str] = Field(default=[])
    k: int | None = Field(default=None, ge=1)
    curve_points: int | None = Field(default=None, ge=0)
    rules: Annotated[dict[str, Any], AfterValidator(tame)] | None = None
    finetune: Train | None = None
    external: dict[Slug, External] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _unit_of_the_metric(cls, given: Any) -> Any:
        """The metric's own unit where it has one; a stated one that differs is refused."""
        primary = given.get("primary") if isinstance(given, dict) else None
        metric = kinds.metrics().get(primary) if isinstance(primary, str) else None
        if metric is None or metric.unit is None:
            return given
        if (stated := given.get("unit", metric.unit)) != metric.unit:
            raise ValueError(f"unit is {stated!r}; {primary} is in {metric.unit}: leave unit out")
        return {**given, "unit": metric.unit}

    @model_validator(mode="after")
    def _known(self) -> Score:
        for name in self.metrics:
            if name not in kinds.metrics():
                raise ValueError(f"unknown metric {name!r}{nearest(name, kinds.metrics())}")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that are reported, the primary one first."""
        return (self.primary, *self.also)

    def reading(self, what: frozenset[str]) -> list[str]:
        """Those that read one of these besides what a network answers."""
        return [name for name in self.metrics if what & kinds.metrics()[name].reads]

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return kinds.metrics()[self.primary].higher_is_better
