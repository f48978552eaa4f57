"""What must be known of a network to use it elsewhere: in every exported file, as JSON under ``kdbench``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from kdbench.data.decode.inputs import Input

KEY = "kdbench"
"""Under which a file's metadata hold it."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Origin(_Model):
    """The run a network comes from.

    Attributes:
        net: ``student``, or ``teacher:<role>``.
        task: ``<name>@v<version>``.
    """

    run_id: str
    net: str
    method: str
    task: str
    seed: int
    kdbench: str


class Raw(_Model):
    """The rows a network is given: not normalised.

    Attributes:
        name: the input of the data set.
        shape: of one row, without the batch.
        dtype: ``uint8`` of pictures and clips, 0 to 255, RGB or grey; ``float32`` of others.
        form: how a file becomes a row, as in a data set's file (``size``, ``resize``, ``white`` ...): a picture is
            turned as its EXIF orientation says, its short side brought to ``resize``, its centre cut out. None where no
            file does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    form: Input | None


class Normalised(_Model):
    """How rows become what the layers read: uint8 is divided by 255, then (x - mean) / std, by channel.

    Attributes:
        name: the input the network reads.
        derived: whether code of the data source makes it from the raw rows first.
        gaps: whether rows may lack it: NaN there becomes 0 first.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    derived: bool = False
    gaps: bool = False


class Answer(_Model):
    """What the network gives: (N, classes) scores, the logarithms of probabilities up to a constant, or (N,) numbers.

    Where the kind has a ``vector`` it gives that instead, and the classes are those of the task's labels.

    Attributes:
        outputs: width of the last layer.
        classes: names, in the order of the scores; empty for numbers.
        column: of labels or numbers in tables; None where a row has not one of them.
        texts: whether labels in tables are names of classes.
        range: (min, max) of the numbers, None for classes.
        offset, scale: numbers are scale * x + offset of the last layer's x.
        unit: of the numbers.
    """

    outputs: int
    classes: tuple[str, ...]
    column: str | None
    texts: bool = False
    range: tuple[float, float] | None = None
    offset: float = 0.0
    scale: float = 1.0
    unit: str = ""


class Scored(_Model):
    """What its record says of it, and by what it is scored again.

    Attributes:
        primary: the first of the task's metrics that a network tells with the rows of its task alone; the task's own
            primary metric where none does.
        value: of ``primary``, as recorded.
        rows: test rows.
        also: the others that it tells so.
        k: as a task's ``score.k``.
    """

    primary: str
    value: float
    rows: int
    unit: str
    also: tuple[str, ...] = ()
    bf16: bool = False
    k: int | None = None


class About(_Model):
    """Everything.

    Attributes:
        kind: of the task.
        arch: the net's name in kdbench.
        built_by_name: whether ``arch`` with the weights is the network; False where the method changed it.
        rules: the task's, by which answers are made of what the network gives (``score.rules``).
    """

    form: Literal[1] = 1
    origin: Origin
    kind: str
    arch: str
    built_by_name: bool
    raw: Raw
    normalised: Normalised
    answer: Answer
    scored: Scored
    rules: dict[str, Any] = {}

    @property
    def words(self) -> str:
        """What lines call it."""
        o = self.origin
        return f"{o.net} of {o.method} on {o.task}, seed {o.seed} ({o.run_id[:8]})"
