"""Representations: training without labels, then a probe of the frozen embeddings that is no part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kdbench.base.yamlfile import describe
from kdbench.kinds.base import (
    DATABASE,
    FEW_POINTS,
    FINETUNED,
    FINETUNED_UNTRAINED,
    UNTRAINED,
    Evidence,
    Kind,
    Metric,
    Scaling,
    Tiny,
    Vector,
)
from kdbench.kinds.contrastive import numbers, unknown
from kdbench.kinds.pretexts import Masked, SimCLR, given

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Rows, Views


def _per_class(given: Any) -> Any:
    """A number of rows, also where it is written as of a subset."""
    return given["per_class"] if isinstance(given, dict) and given.keys() == {"per_class"} else given


class Rules(BaseModel):
    """A task's ``score.rules``.

    Attributes:
        labels: training rows of each class, the first in their order, that a probe on few labels sees; a class of
            fewer is refused where a task states the number.
        penalty: half of it times the squared weights is added to a linear probe's mean cross-entropy.
        neighbours: training rows that vote.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    labels: Annotated[int, BeforeValidator(_per_class), Field(ge=1)] = 10
    penalty: float = Field(default=1e-3, gt=0)
    neighbours: int = Field(default=20, ge=1)


def _arrays(output: Any, database: tuple[Any, Any] | None, p: Evidence) -> Any:
    assert database is not None
    return (one.cpu().numpy() for one in (*database, output, p.y))


def _linear(p: Evidence, rules: Rules) -> Any:
    """(N,) whether a linear probe tells each test row's class."""
    from kdbench.stats.probe import linear

    rows, of_rows, queries, y = _arrays(p.output, p.database, p)
    return linear(rows, of_rows, queries, rules.penalty) == y


def _few(p: Evidence, rules: Rules) -> Any:
    from kdbench.stats.probe import first_of_each, linear

    rows, of_rows, queries, y = _arrays(p.output, p.database, p)
    chosen = first_of_each(of_rows, rules.labels)
    return linear(rows[chosen], of_rows[chosen], queries, rules.penalty) == y


def _nearest(p: Evidence, rules: Rules) -> Any:
    from kdbench.stats.probe import nearest

    rows, of_rows, queries, y = _arrays(p.output, p.database, p)
    return nearest(rows, of_rows, queries, rules.neighbours) == y


def _untrained(p: Evidence, probe: Callable[[Evidence], Any]) -> Any:
    """A probe of the student as it was before training."""
    assert p.untrained is not None
    output, database = p.untrained
    return probe(Evidence(output, p.y, database=database))


def _finetuned(p: Evidence, which: str) -> Any:
    """(N,) whether the highest class score of a fine-tuned student is the label's."""
    return (getattr(p, which).argmax(1) == p.y).cpu().numpy()


def _most_frequent(y: Sequence[float]) -> float:
    return 100 * max(Counter(y).values()) / len(y)


def _share(
    about: str,
    told: Callable[[Evidence], Any],
    word: str,
    reads: str = DATABASE,
    floor: str = "",
    curve_points: int | None = None,
) -> Metric:
    """The share of test rows that are told, (N,) of NumPy."""

    def share(p: Evidence) -> Tensor:
        import torch

        return torch.tensor(100 * float(p.once(told).mean()), dtype=torch.float64)

    def each(p: Evidence) -> Tensor:
        import torch

        return torch.from_numpy(p.once(told))

    return Metric(
        True, "%", about, share, frozenset({reads}), 100.0, share=True, chance=_most_frequent, floor=floor, word=word,
        each=each, curve_points=curve_points,
    )  # fmt: skip


def _metrics(rules: Rules) -> dict[str, Metric]:
    before = "the same of the student before any training"
    linear, few, nearest = (partial(probe, rules=rules) for probe in (_linear, _few, _nearest))
    return {
        "probe": _share(
            "test items that a linear probe of all training rows tells",
            linear,
            "linear probe",
            floor="probe_untrained",
            curve_points=FEW_POINTS,
        ),
        "probe_few": _share(
            "test items that a linear probe of a few rows of each class tells",
            few,
            "few labels",
            floor="probe_few_untrained",
        ),
        "knn": _share("test items that their nearest training rows tell", nearest, "k-NN"),
        "probe_untrained": _share(before, partial(_untrained, probe=linear), "linear probe, untrained", UNTRAINED),
        "finetune": _share(
            "test items that the student tells, fine-tuned with the labels of all training rows",
            partial(_finetuned, which=FINETUNED),
            "fine-tuned",
            FINETUNED,
            floor="finetune_untrained",
            curve_points=0,
        ),
        "finetune_untrained": _share(
            "the same of a student that starts untrained",
            partial(_finetuned, which=FINETUNED_UNTRAINED),
            "fine-tuned, untrained",
            FINETUNED_UNTRAINED,
        ),
        "probe_few_untrained": _share(before, partial(_untrained, probe=few), "few labels, untrained", UNTRAINED),
    }


def _classes(pixels: Tensor, digits: Tensor) -> Tensor:
    return digits


MASKED = Tiny(
    "probe",
    _classes,
    loss={"name": "masked", "patch": 4, "hide": 0.5},
    pairs=(
        ("image", "mae8d1:vit_w8d2h2p2", "mae8d1:vit_w16d3h4p2"),
        ("image", "spark8:convnet_w4_s3", "spark8:convnet_w8_s3"),
        ("image", "spark8:convnet_w4_s3", "mae8d1:vit_w16d3h4p2"),
    ),
)
"""The smallest task of hidden patches."""


class Representation(Kind):
    """Targets are classes and are read by the probe alone; training sees the rows' own numbers instead.

    The loss is SimCLR's on two views of each row, of nets that give a projection as ``logits``; or that of hidden
    patches (``train.loss``), of nets that give ``patches``. What is probed is ``emb``. A probe is fitted on all
    training rows, not augmented.
    """

    name = "representation"
    about = "embeddings that a probe tells classes by"
    metrics: ClassVar = _metrics(Rules())
    tiny = Tiny("probe", _classes, wraps="project8:")
    vector = Vector("emb", "embedding")
    lacks = frozenset({"classifier", "tail"})
    one_way = False
    labelled = "classification"

    def __init__(self, rules: Rules | None = None, pretext: SimCLR | Masked | None = None) -> None:
        self.rules = rules or Rules()
        self.pretext = pretext or SimCLR()
        self._own = _metrics(self.rules)
        self.one_process, self.eager = self.pretext.one_process, self.pretext.eager
        self.least_batch = self.pretext.least_batch

    def ruled(self, rules: Mapping[str, Any]) -> Kind:
        try:
            return Representation(Rules.model_validate(rules), self.pretext) if rules else self
        except ValidationError as error:
            raise ValueError(f"score.rules: {describe(error, Rules)}") from error

    def trained(self, settings: Mapping[str, Any]) -> Kind:
        return Representation(self.rules, given(settings)) if settings else self

    @property
    def tinies(self) -> Sequence[Tiny]:
        return (self.tiny, MASKED)

    @property
    def views(self) -> Views | None:
        return self.pretext.views

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        return "a number to predict" if label_range is not None else None

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        classes, said = Counter(train.y.tolist()), self.rules.model_fields_set
        if len(classes) < 2:
            return "a probe needs at least two classes, the training rows have one; change the data"
        if missing := unknown(train, test):
            return f"no training row shows a probe the test rows' class {missing}; change the data"
        fewest, count = min(classes.items(), key=lambda one: (one[1], one[0]))
        if "labels" in said and count < self.rules.labels:
            return (
                f"score.rules.labels={self.rules.labels} is more than the {count} training rows of class {fewest}; "
                "lower it"
            )
        if "neighbours" in said and len(train.y) < self.rules.neighbours:
            return f"score.rules.neighbours={self.rules.neighbours}: there are {len(train.y)} training rows; lower it"
        return None

    def scaled(self, y: Any, scaling: Scaling) -> Any:
        return numbers(y)

    def loss(self, out: Out, batch: Batch) -> Tensor:
        return self.pretext.loss(out, batch)

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """(N, D) embeddings."""
        return out.emb.float()

    @property
    def own_metrics(self) -> Mapping[str, Metric]:
        return self._own


KIND = Representation()
