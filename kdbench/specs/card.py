"""Method cards: the facts of a method as data (``methods/<name>/card.yaml``)."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kdbench import kinds
from kdbench.base.errors import UserError, nearest

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
VariantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.+@*-]*$", max_length=64)]
Https = Annotated[str, StringConstraints(pattern=r"^https://[^\s\"'<>]+$", max_length=300)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]

FAMILIES = {
    "reference": "what methods are compared with",
    "logit": "the teacher's class scores",
    "feature": "the teacher's intermediate features",
    "relation": "relations between samples",
    "contrastive": "contrastive objectives, with memory banks or graphs",
    "self": "no teacher, the student teaches itself",
    "online": "networks that teach each other while they train",
    "data": "distillation through generated or transformed data",
    "cross-modal": "a teacher of another modality",
}


def _known_kinds(names: list[str]) -> list[str]:
    try:
        return kinds.current(names)
    except UserError as error:
        raise ValueError(str(error)) from error


def _known_kind(name: str) -> str:
    return _known_kinds([name])[0]


Kinds = Annotated[list[str], AfterValidator(_known_kinds)]
"""Kinds of task, by their names of today."""
ParamsSource = Literal["paper", "official_code", "tuned", "default"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Search(_Model):
    """Where ``kdbench tune`` looks for a hyper-parameter's value: between two bounds, or among choices.

    ``log`` spreads points evenly over factors instead of differences. ``source`` says why there: the paper's own
    ablation where it has one.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = Field(default=None, min_length=2)
    source: Text

    @model_validator(mode="after")
    def _is_a_range(self) -> Search:
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.choices is None):
            raise ValueError("a search has either low and high, or choices")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"a search goes from low to high, not from {self.low:g} to {self.high:g}")
            if self.log and self.low <= 0:
                raise ValueError(f"a search over factors begins above 0, not at {self.low:g}; leave log out")
        return self


class HyperParameter(_Model):
    """One hyper-parameter: its default, bounds and meaning. Its type is the default's unless ``type`` says more.

    ``type: method`` is an inner method, ``type: net`` a net that the method builds, each given by name. ``search`` is
    where ``kdbench tune`` looks, false for what it leaves alone; unset, around a number above 0.
    """

    default: Any
    doc: Text
    source: Text | None = None
    type: Literal["float", "int", "bool", "str", "floats", "ints", "strs", "method", "net"] | None = None
    optional: bool = False
    min: float | None = None
    above: float | None = None
    max: float | None = None
    choices: list[str] | None = None
    search: Search | Literal[False] | None = None

    @property
    def kind(self) -> str:
        """The type's name."""
        if self.type is not None:
            return self.type
        default = self.default[0] if isinstance(self.default, list) and self.default else self.default
        return type(default).__name__ + ("s" if isinstance(self.default, list) else "")

    @model_validator(mode="after")
    def _default_is_valid(self) -> HyperParameter:
        if self.default is None and not self.optional:
            raise ValueError("default is null: set optional: true (and a type) or give a value")
        self.check(self.default)
        if self.search:
            ends: list[Any] = self.search.choices or [self.search.low, self.search.high]
            for value in ends:
                self.check(int(value) if self.kind == "int" and value == int(value) else value)
        return self

    def check(self, value: Any) -> Any:
        """``value`` in its own type.

        Raises:
            ValueError: not of the type, or outside the bounds; the message says which.
        """
        if value is None:
            if self.optional:
                return None
            raise ValueError(f"a {self.kind} is expected, not null")
        if self.kind.endswith("s"):
            if not isinstance(value, (list, tuple)):
                raise ValueError(f"a list of {self.kind} is expected, given {value!r}")
            return tuple(self._one(item, self.kind[:-1]) for item in value)
        return self._one(value, self.kind)

    def _one(self, value: Any, kind: str) -> Any:
        types = {"float": float, "int": int, "bool": bool, "str": str, "method": str, "net": str}
        if kind not in types:
            raise ValueError(f"a {kind} is no hyper-parameter; use {', '.join(types)} or a list of one of these")
        expected: Any = types[kind]
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise ValueError(f"must be finite, given {value!r}") from None
        if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
            raise ValueError(f"a {kind} is expected, given {value!r}")
        if not isinstance(value, int | float) and {self.min, self.above, self.max} != {None}:
            raise ValueError(f"min, above and max are for numbers, not for a {kind}")
        if self.min is not None and value < self.min:
            raise ValueError(f"must be at least {self.min:g}, given {value!r}")
        if self.above is not None and value <= self.above:
            raise ValueError(f"must be above {self.above:g}, given {value!r}")
        if self.max is not None and value > self.max:
            raise ValueError(f"must be at most {self.max:g}, given {value!r}")
        if kind == "float" and value - value != 0:
            raise ValueError(f"must be finite, given {value!r}")
        if self.choices is not None and value not in self.choices:
            raise ValueError(
                f"must be one of {', '.join(self.choices)}{nearest(str(value), self.choices)}, given {value!r}"
            )
        return value


class When(_Model):
    """The tasks a published value belongs to; every key given must match.

    ``kind`` is of values that all tasks of a kind begin with, where networks of that kind are read otherwise.
    Values without ``variant`` are the method's own, beneath whatever a variant sets; those with one are that variant's.
    """

    kind: Annotated[str, AfterValidator(_known_kind)] | None = None
    source: str | None = None
    student: str | None = None
    teacher: str | None = None
    task: str | None = None
    variant: VariantName | None = None


class Published(_Model):
    """Hyper-parameter values published for a data set or a pair."""

    when: When
    params: dict[str, Any]
    source: Text
    params_source: ParamsSource = "official_code"


class Variant(_Model):
    """A named parameter set: a method name everywhere, and ranked unless it has a protocol of its own.

    ``own_protocol`` lists task keys that the paper sets differently (``train.epochs: 480``); such rows stand apart.
    A name that ends in ``*`` stands for every method in its place; ``matched`` then names the hyper-parameter that
    takes the recipe cost of that method over plain's. ``kinds`` and ``needs`` are given where they are not the card's.
    """

    about: Text
    params: dict[str, Any] = {}
    own_protocol: dict[str, Any] = {}
    matched: Slug | None = None
    source: Text | None = None
    kinds: Kinds | None = None
    needs: list[Text] | None = None


class Claim(_Model):
    """A published figure: the metric's value on a data set and pair, with its source."""

    source: str
    student: str
    teacher: str | None = None
    metric: str = "top1"
    value: float
    unit: str = "%"
    reference: Text
    verified: bool = True


class Point(_Model):
    """A statement of what is public of a method, in our words, and how the adapter follows it."""

    says: Text
    done: Text


class Reconstruction(_Model):
    """Of a method of which neither code nor equations are public: what is known of it, and what kdbench chose.

    ``known`` names what is public; ``points`` are all its statements; ``choices`` are what no source says.
    """

    known: Text
    points: list[Point] = Field(min_length=1)
    choices: list[Text] = Field(min_length=1)


class Caution(_Model):
    """What a reader of a row on ``task`` must know of its number; ``method`` is the card's own, or a variant's name."""

    task: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_./-]*$", max_length=64)]
    method: Text | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Response(_Model):
    """What authors of the method say of its results here, as they sent it on ``date``."""

    date: datetime.date
    by: Text
    text: Text


class Link(_Model):
    paper: Https | None = None
    code: Https | None = None


_CONFERENCES = frozenset(
    (
        "AAAI", "ACCV", "ACL", "BMVC", "COLING", "CVPR", "ECCV", "EMNLP", "ICASSP", "ICCV", "ICLR", "ICML", "IJCAI",
        "INTERSPEECH", "NAACL", "NeurIPS", "NIPS", "NIPS Deep Learning Workshop", "The Web Conference", "WACV",
    )
)  # fmt: skip
_ENTRIES = (
    (_CONFERENCES, ("inproceedings", "booktitle")),
    (frozenset(("arXiv",)), ("misc", "howpublished")),
)
"""Venues, and the kind of BibTeX entry with its field for them; all others are journals."""


class Card(_Model):
    """A method's facts. ``name`` is its folder's; ``adapter`` the class in ``adapter.py``.

    ``kinds`` are the kinds of task it runs on, None for any; ``needs`` the words of the adapter's needs at its
    defaults, for those who do not import it.
    """

    name: Slug
    adapter: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    title: Text
    authors: list[Text]
    year: int = Field(ge=1990, le=2100)
    venue: Text
    bibkey: Slug
    links: Link = Link()
    family: Literal[tuple(FAMILIES)]  # type: ignore[valid-type]
    summary: Text
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    kinds: Kinds | None = None
    needs: list[Text] = []
    parity: Literal["verified", "unverified", "exact", "reconstruction"] = "unverified"
    reconstruction: Reconstruction | None = None
    hyper_parameters: dict[Slug, HyperParameter] = {}
    published: list[Published] = []
    variants: dict[VariantName, Variant] = {}
    smoke: dict[str, Any] = {}
    claims: list[Claim] = []
    claimed_overhead: Text | None = None
    deviations: list[Text] = []
    quirks: list[Text] = []
    cautions: list[Caution] = []
    responses: list[Response] = []

    @model_validator(mode="after")
    def _reconstruction_is_told(self) -> Card:
        if (self.parity == "reconstruction") != (self.reconstruction is not None):
            raise ValueError("'reconstruction' (known, points, choices) is given exactly where parity says so")
        return self

    @model_validator(mode="after")
    def _params_are_known(self) -> Card:
        places = [("smoke", self.smoke)]
        places += [(f"published[{i}]", entry.params) for i, entry in enumerate(self.published)]
        places += [(f"variants[{name}]", variant.params) for name, variant in self.variants.items()]
        for place, params in places:
            for key, value in params.items():
                try:
                    self.check(key, value)
                except UserError as error:
                    raise ValueError(f"{place}: {error}") from error
        for name, variant in self.variants.items():
            if (variant.matched is not None) != name.endswith("*") or "*" in name[:-1]:
                raise ValueError(f"variants[{name}]: a name ends in '*' exactly when 'matched' is given")
            if variant.matched is not None and variant.matched not in self.hyper_parameters:
                raise ValueError(f"variants[{name}]: no hyper-parameter {variant.matched!r}")
        for i, entry in enumerate(self.published):
            if entry.when.variant is not None and entry.when.variant not in self.variants:
                raise ValueError(f"published[{i}]: no variant {entry.when.variant!r}")
        return self

    def check(self, key: str, value: Any) -> Any:
        """A hyper-parameter's value in its own type; UserError for an unknown name or a wrong value."""
        if key not in self.hyper_parameters:
            raise UserError(f"{self.name} has no hyper-parameter {key!r}{nearest(key, self.hyper_parameters)}")
        try:
            return self.hyper_parameters[key].check(value)
        except ValueError as error:
            raise UserError(f"hyper-parameter {key} of {self.name}: {error}") from error

    def defaults(self) -> dict[str, Any]:
        """Hyper-parameters at their defaults."""
        return {key: hp.check(hp.default) for key, hp in self.hyper_parameters.items()}

    def for_pair(
        self,
        *,
        task: str,
        source: str,
        student: str,
        teacher: str | None,
        variant: str | None = None,
        kind: str | None = None,
    ) -> tuple[dict[str, Any], ParamsSource | None]:
        """Values published for a task, of the method or of one variant, and where they come from if there are any.

        Where several entries name a value, the most specific one counts: of more facts, and of as many the task's own.
        """
        facts = {"task": task, "source": source, "student": student, "teacher": teacher, "variant": variant}
        facts["kind"] = kind

        def keys(entry: Published) -> dict[str, str]:
            return entry.when.model_dump(exclude_none=True)

        matching = [e for e in self.published if e.when.variant == variant]
        matching = [e for e in matching if all(facts[k] == v for k, v in keys(e).items())]
        matching.sort(key=lambda e: (len(keys(e)), e.when.task is not None))
        values: dict[str, Any] = {}
        for entry in matching:
            values |= entry.params
        return values, matching[-1].params_source if matching else None

    def of_kind(self, kind: str) -> dict[str, Any]:
        """Values that every task of a kind begins with, whatever its data and pair."""
        only = [e for e in self.published if e.when.model_dump(exclude_none=True) == {"kind": kind}]
        return {key: value for entry in only for key, value in entry.params.items()}

    def typed(self, values: dict[str, Any]) -> Any:
        """Frozen dataclass instance of checked hyper-parameters, what an adapter gets as ``hp``."""
        fields = [(key, Any) for key in self.hyper_parameters]
        name = re.sub(r"\W", "", self.adapter) + "HyperParameters"
        cls = dataclasses.make_dataclass(name, fields, frozen=True)
        return cls(**{key: self.check(key, values[key]) for key in self.hyper_parameters})

    def bibtex(self) -> str:
        """A BibTeX entry made from the card's facts."""
        kind, held = next((entry for venues, entry in _ENTRIES if self.venue in venues), ("article", "journal"))
        lines = [
            f"@{kind}{{{self.bibkey},",
            f"  title = {{{self.title}}},",
            f"  author = {{{' and '.join(self.authors)}}},",
            f"  {held} = {{{self.venue}}},",
            f"  year = {{{self.year}}},",
        ]
        if self.links.paper:
            lines.append(f"  url = {{{self.links.paper}}},")
        return "\n".join([*lines, "}"])
