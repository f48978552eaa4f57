"""What a kind of task is made of. Imported by ``list`` and ``show``: no torch here but for its types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Out, Rows, Targets, Views, Vocabulary

RETRIEVAL = frozenset({"emb", "gallery"})
"""Evidence of metrics that search the training rows by embeddings."""
DATABASE, TEACHER_DATABASE = "database", "teacher_database"
"""Evidence of metrics that search what a network answers for the training rows."""
DATABASES = frozenset({DATABASE, TEACHER_DATABASE})
FINETUNED, FINETUNED_UNTRAINED = "finetuned", "finetuned_untrained"
"""Evidence of metrics that ask what the student is worth once it is fine-tuned, and the same of the untrained one."""
FINETUNES = frozenset({FINETUNED, FINETUNED_UNTRAINED})
UNTRAINED = "untrained"
"""Evidence of metrics that ask what the student was worth before it was trained."""
FEW_POINTS = 8
"""``Metric.curve_points`` of metrics that take seconds: fits, matches of boxes, sentences to write."""
T = TypeVar("T")


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        unit: None means the task's own unit.
        reads: evidence it reads beside ``output`` and ``y``: ``teacher`` (the first teacher's output), ``emb`` and
            ``gallery`` (embeddings of test and training rows), ``database`` and ``teacher_database`` (what the network
            and the first teacher answer for all training rows), ``untrained``.
        high: the largest value there is, None without one; the smallest is 0.
        share: a share of the test items in percent, so that their number alone tells its noise.
        chance: of the test rows' targets the value of the best answer that ignores the input; None where that has no
            meaning.
        floor: another metric of the kind, that plain must beat for the task to be ranked by this one; "" for none.
        word: how people write its name; "" for the name itself.
        ranks: a task that scores it beside its primary metric is ranked by it a second time.
        column: a table of results offers a column of it beside the primary metric's, without ranks.
        each: what the metric is of each test row, (N,): bool, whether the network is right, where the metric is their
            share in percent; or numbers in the metric's unit, whose mean it is. None where it is of all rows together.
        curve_points: at how many points of a run's curve it is computed at most, spread evenly, the last among them;
            None for all of them, few where it takes long beside an epoch.
    """

    higher_is_better: bool
    unit: str | None
    about: str
    fn: Callable[[Evidence], Tensor]
    reads: frozenset[str] = frozenset()
    high: float | None = None
    share: bool = False
    chance: Callable[[Sequence[Any]], float] | None = None
    floor: str = ""
    word: str = ""
    ranks: bool = False
    column: bool = False
    each: Callable[[Evidence], Tensor] | None = None
    curve_points: int | None = None

    @property
    def bounds(self) -> tuple[float, float | None]:
        """The smallest and the largest value."""
        return (0.0, self.high)

    @property
    def alone(self) -> bool:
        """Whether a network tells it with nothing but the rows of its task."""
        return self.reads <= {DATABASE}

    def noise(self, value: float, items: int | None) -> float | None:
        """Standard deviation of a value measured on so many test items; None where the items alone do not tell."""
        from kdbench.stats import item_noise

        return item_noise(value, items) if self.share and items else None

    def at_chance(self, value: float, chance: float, items: int | None) -> bool:
        """Whether a value is not told from, or worse than, that of an answer which ignores the input."""
        allowed = 2 * (self.noise(chance, items) or 0.0)
        return value <= chance + allowed if self.higher_is_better else value >= chance - allowed


@dataclass
class Evidence:
    """What metrics read of the test rows.

    Attributes:
        output: what the network answers, in the task's own unit: (N, C) logits, (N,) numbers, or what the kind keeps.
        y: the targets, in the task's own unit.
        teacher: the first teacher's output, None without one.
        emb: (N, D) embeddings, None where no metric asks for them or the network has none.
        gallery: (M, D) embeddings of the training rows and their (M,) targets, the set that retrieval searches.
        database: what the network answers for all M training rows, whatever subset it trained on, and their targets.
        teacher_database: the same of the first teacher.
        untrained: ``output`` and ``database`` of the student as it was before training.
        finetuned, finetuned_untrained: (N, C) class scores of the student after fine-tuning, and of one that started as
            it was before training.
        k: how many of the first found count; None for all.
    """

    output: Any
    y: Any
    teacher: Any = None
    emb: Tensor | None = None
    gallery: tuple[Tensor, Tensor] | None = None
    database: tuple[Any, Any] | None = None
    teacher_database: tuple[Any, Any] | None = None
    untrained: tuple[Any, tuple[Any, Any]] | None = None
    finetuned: Tensor | None = None
    finetuned_untrained: Tensor | None = None
    k: int | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, make: Callable[[Evidence], T]) -> T:
        """What a function makes of it, computed once: a metric and what it is of each row come from one search or fit.

        Args:
            make: the same object whenever it is asked for.
        """
        if make not in self._made:
            self._made[make] = make(self)
        found: T = self._made[make]
        return found

    def has(self, what: str) -> bool:
        """Whether a piece is there."""
        return getattr(self, what) is not None


@dataclass(frozen=True)
class Mark:
    """What is drawn on a test picture: something that is there, or that a network found.

    Attributes:
        label: its class.
        points: corners of its outline, as shares of the picture's width and height.
        score: how sure the network is, 0 to 1; None for what is there.
    """

    label: int
    points: tuple[tuple[float, float], ...]
    score: float | None = None


@dataclass(frozen=True)
class Scaling:
    """How targets of the task's own unit become what a batch holds, and back: (y - offset) / scale.

    Attributes:
        label_range: (min, max) of the targets as in a batch, None where they have none.
    """

    offset: float = 0.0
    scale: float = 1.0
    label_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Vector:
    """What a deployed network gives of a row where that is neither class scores nor a number.

    Attributes:
        field: of :class:`kdbench.contract.Out`.
        word: what files and tables call it.
        bits: whether the signs alone count, a score of exactly 0 as 1.
    """

    field: str
    word: str
    bits: bool = False


@dataclass(frozen=True)
class Tiny:
    """The smallest task of a kind, on embedded digits: what ``kdbench check`` trains adapters on.

    Attributes:
        score: its primary metric.
        rows: (pixels (N, 1, 8, 8) uint8, digits (N,)) of a part -> the targets of these rows.
        classes: outputs of a network.
        label_range: as of a data set.
        wraps: what stands before the name of a network.
        sentences: where rows are sentences: the same -> input ``source``, and the targets.
        vocabularies: theirs.
        pairs: the input, student's and teacher's net to try in turn instead of the usual ones.
        loss: as a task's ``train.loss``.
        fit_steps: optimiser steps that its teachers are fitted in.
    """

    score: str
    rows: Callable[[Tensor, Tensor], Targets | Tensor]
    classes: int = 10
    label_range: tuple[float, float] | None = None
    wraps: str = ""
    sentences: Callable[[Tensor, Tensor], Rows] | None = None
    vocabularies: Callable[[], Mapping[str, Vocabulary]] | None = None
    pairs: tuple[tuple[str, str, str], ...] = ()
    loss: Mapping[str, Any] | None = None
    fit_steps: int = 60


class Kind:
    """A kind of task; a subclass says what is not as here.

    Attributes:
        name: as in ``kind: NAME``.
        about: in a few words.
        metrics: name to metric; of a metric in the targets' own unit the task names the unit.
        also: kinds whose methods run here unchanged, for batches and networks hold what theirs do.
        tiny: its smallest task.
        lacks: words of a method's needs that no network of this kind offers.
        one_process: why runs cannot be shared by several processes, None where they can.
        one_way: whether every method minimises the task's own loss, beside its own; where not, some learn from another.
        labelled: the kind of a task of the same rows whose training reads the labels; None where training reads them.
        class_a_row: whether what training sees of a row is the number of its class.
        placed: whether targets are places in a picture, which an augmentation has to move with it.
        box: key of a box in result files (:data:`kdbench.kinds.predicted.SIDES`); None of kinds without boxes.
        viewless: why a row cannot be seen in several views, None where it can.
        eager: why steps can be neither captured nor compiled, None where they can.
        vector: what its networks are deployed for, where that is neither class scores nor numbers; else None.
        unwritten: why no graph holds what gives a network's answers, None where one can; a file of weights always does.
        least_batch: rows that a batch must have for its loss to mean something, as one that compares them needs two.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    tiny: ClassVar[Tiny]
    also: ClassVar[frozenset[str]] = frozenset()
    one_process: str | None = None
    one_way: ClassVar[bool] = True
    labelled: ClassVar[str | None] = None
    class_a_row: ClassVar[bool] = False
    placed: ClassVar[bool] = False
    box: ClassVar[str | None] = None
    eager: str | None = None
    vector: ClassVar[Vector | None] = None
    unwritten: ClassVar[str | None] = None
    least_batch: int = 1
    viewless: ClassVar[str | None] = None
    lacks: ClassVar[frozenset[str]] = frozenset()

    def ruled(self, rules: Mapping[str, Any]) -> Kind:
        """This kind under a task's ``score.rules``.

        Raises:
            ValueError: rules that it does not have; the message names the nearest.
        """
        if rules:
            raise ValueError(f"a {self.name} task has no score.rules; leave them out")
        return self

    def smoothed(self, share: float) -> Kind:
        """This kind whose loss spreads a share of each target evenly over all classes (``train.label_smoothing``).

        Raises:
            ValueError: its targets are no classes.
        """
        raise ValueError(f"a {self.name} task has no train.label_smoothing; leave it out")

    def trained(self, settings: Mapping[str, Any]) -> Kind:
        """This kind under a task's ``train.loss``.

        Raises:
            ValueError: settings that it does not have; the message names the nearest.
        """
        if settings:
            raise ValueError(f"a {self.name} task has no train.loss; leave it out")
        return self

    @property
    def tinies(self) -> Sequence[Tiny]:
        """Its smallest tasks, the first that of most methods."""
        return (self.tiny,)

    @property
    def views(self) -> Views | None:
        """The task's own views of each row, None for one as it is; a stage's own views take their place."""
        return None

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        """Why metrics would mean nothing on these rows, in a line with what to do; None where they mean something.

        Args:
            train: all training rows.
            k: as a task's ``score.k``.
        """
        return None

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        """What training rows have instead of this kind's targets, in a few words; None where they fit."""
        return None

    def scaling(self, train: Rows, label_range: tuple[float, float] | None) -> Scaling:
        """How the targets of a task are scaled, by its training rows.

        Args:
            label_range: (min, max) in the task's own unit, None without one.
        """
        return Scaling(label_range=label_range)

    def scaled(self, y: Any, scaling: Scaling) -> Any:
        """Targets of the task's own unit as a batch holds them."""
        return y

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """The task's own loss, 0-d: what plain and a teacher's training minimise."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")  # abstract

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """What metrics read of a network's output for a batch of test rows, in the task's own unit.

        A tensor of as many rows; or less, such as counts, where whole outputs would not fit into memory.
        """
        return out.logits.float()

    def answered(self, net: Any, batch: Batch, scaling: Scaling, names: Sequence[str]) -> Any:
        """:meth:`answer` of a network, as far as some metrics read it."""
        return self.answer(net(batch), batch, scaling)

    def signatures(self, names: Sequence[str]) -> dict[str, str]:
        """Of metrics that others compute too, under what settings and version, in their program's own words."""
        return {}

    def joined(self, answers: Sequence[Any]) -> Any:
        """The answers for all batches, in order, as one."""
        import torch

        return torch.cat(list(answers))

    def looked(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        """What :meth:`marked` draws of a network's output: its answer, where that tells what lies where."""
        return self.answer(out, batch, scaling)

    def marked(self, seen: Any, y: Any) -> list[tuple[list[Mark], list[Mark]]]:
        """What is there and what was found on each picture of a batch, to be looked at; [] where nothing is drawn.

        Args:
            seen: of :meth:`looked`, for the pictures of ``y``.
        """
        return []

    def blank(self, came: Tensor, content: Tensor, size: tuple[int, int]) -> Any:
        """Targets of pictures that nobody labelled, where answers are places in them.

        Args:
            came: (N, 2) height and width of each as it came.
            content: (N, 2) the same within the network's input, padding left out.
            size: height and width of the network's input.
        """
        raise NotImplementedError(f"answers of a {self.name} task are no places in pictures")

    def entries(self, seen: Any) -> list[list[dict[str, Any]]]:
        """What :meth:`looked` gives as entries of a result file, a list a picture (:mod:`kdbench.kinds.predicted`)."""
        raise NotImplementedError(f"answers of a {self.name} task are no places in pictures")

    def answered_by(self, entries: list[list[dict[str, Any]]], y: Any, classes: int) -> Any:
        """The answer that entries of a result file stand for, to the pictures of ``y``."""
        raise NotImplementedError(f"answers of a {self.name} task are no places in pictures")

    def by_class(self, name: str, evidence: Evidence) -> dict[int, float]:
        """A metric that is a mean over classes, of each class that is there, by its number; {} of another metric."""
        return {}

    def score(self, names: Sequence[str], evidence: Evidence) -> dict[str, float]:
        """Named metrics; those whose evidence is not there are left out. One evaluation may give several of them."""
        own = self.own_metrics
        usable = [name for name in names if all(evidence.has(what) for what in own[name].reads)]
        return {name: float(own[name].fn(evidence)) for name in usable}

    @property
    def gives(self) -> str:
        """The field of :class:`kdbench.contract.Out` that a deployed network gives, of kinds that a graph holds."""
        return "logits" if self.vector is None else self.vector.field

    @property
    def own_metrics(self) -> Mapping[str, Metric]:
        """Its metrics under its rules, the same objects at every call."""
        return self.metrics
