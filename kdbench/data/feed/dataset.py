"""A data set: raw rows of a fixed training and test part, how they become inputs, and the hashes that identify them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256
from kdbench.base.seeds import derive
from kdbench.contract import Batch, Rows, Sentences, Vocabulary
from kdbench.contract.sentences import TARGET
from kdbench.data.feed import kept
from kdbench.data.feed.stored import Stored
from kdbench.specs.data import Subset


@dataclass(frozen=True)
class Transform:
    """How an input's raw values become network input: uint8 is divided by 255, then (x - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    _held: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, raw: Tensor) -> Tensor:
        """Raw (N, C, ...) to normalised float32."""
        x = raw.float().div_(255) if raw.dtype is torch.uint8 else raw.float()
        mean, std = (values.view(1, -1, *([1] * (x.ndim - 2))) for values in self._on(x.device))
        return (x - mean) / std

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(C,) mean and std on a device: brought there once, as the host waits for each copy."""
        if torch.compiler.is_compiling():  # a tensor that was there before would be an input of the program
            return self._made(device)
        if device not in self._held:
            self._held[device] = self._made(device)
        return self._held[device]

    def _made(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (self.mean, self.std))
        return mean, std


@dataclass(frozen=True)
class Symbols(Transform):
    """Of symbols of a vocabulary, which networks see as they are."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, raw: Tensor) -> Tensor:
        return raw


Derive = Callable[[Tensor, "torch.Generator | None"], Tensor]


@dataclass(frozen=True)
class Derived:
    """An input made from another one's raw values after their augmentation, so that both show the same crop.

    Attributes:
        base: the input it is made from.
        fn: (raw values (N, ...), generator) -> raw values (N, ...); the generator is None for test rows.
    """

    base: str
    fn: Derive


@dataclass(frozen=True)
class Dataset:
    """Raw rows and facts of a data source.

    Attributes:
        train, test: raw rows; targets of a regression are in the task's own unit. Inputs are tensors, or
            :class:`Stored` columns whose rows are read from disk when drawn.
        classes: number of classes, 1 for a regression.
        transforms: input name to its normalisation, derived inputs among them.
        derived: inputs that are not held but made from others.
        shows: input to the column of pictures it is made from: inputs of one picture are cropped and mirrored alike in
            training, each at its own size. Where an augmentation counts pixels, they are those of the first.
        optional: inputs that some rows lack; such a row holds NaN there.
        made: input name to the settings, beyond its content and geometry, that decide its values.
        label_range: (min, max) of regression targets, None for classes.
        properties: what methods may rely on, e.g. ``rgb``, ``rotation_safe``.
        source: where the rows came from, for the record.
        official: False for rows that are not those the name stands for; never ranked beside them.
        drawn: sha256 of the training rows a subset drew, None without one.
        class_names: in the order of their numbers; None where numbers are all there is.
        whole: all training rows, where ``train`` is a subset of them; None where it is all.
        vocabularies: of sentences, which symbols each input's are, and ``target`` those of the targets.
        digests: part to content digest where it is known already.
        numbers: of each training row the number among all training rows of the source; None where they are all.
    """

    name: str
    train: Rows
    test: Rows
    classes: int
    transforms: Mapping[str, Transform]
    derived: Mapping[str, Derived] = field(default_factory=dict)
    shows: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    label_range: tuple[float, float] | None = None
    properties: frozenset[str] = frozenset()
    source: str = ""
    official: bool = True
    drawn: str | None = None
    class_names: tuple[str, ...] | None = None
    whole: Rows | None = None
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    numbers: NDArray[np.int64] | None = None

    def shape(self, input_name: str) -> tuple[int, ...]:
        """Shape of one row of an input.

        Raises:
            UserError: there is no such input; names those there are.
        """
        if input_name in self.train.x:
            return tuple(self.train.x[input_name].shape[1:])
        if input_name in self.derived:
            made = self.derived[input_name]
            base = torch.zeros(2, *self.shape(made.base), dtype=self.train.x[made.base].dtype)
            return tuple(made.fn(base, None).shape[1:])
        known = [*self.train.x, *self.derived]
        raise UserError(f"data set {self.name!r} has no input {input_name!r}; its inputs are {', '.join(known)}")

    def reduced(self, input_name: str) -> int:
        """How many pixels of a side of the picture that an input is made of became one of its own; 1 of others."""
        made = self.derived.get(input_name)
        if made is None or len(self.shape(input_name)) != len(self.shape(made.base)):
            return 1
        return max(1, self.shape(made.base)[-1] // self.shape(input_name)[-1])

    def reads(self, input_name: str) -> tuple[Vocabulary, Vocabulary] | None:
        """The vocabularies of an input and of the targets; None of an input that holds no sentences."""
        if input_name not in self.vocabularies:
            return None
        return self.vocabularies[input_name], self.vocabularies[TARGET]

    def only(self, names: Iterable[str]) -> Dataset:
        """The same rows with no other inputs than ``names``, most important first, and those they are made from.

        Raises:
            UserError: there is no such input.
        """
        wanted = dict.fromkeys(names)
        for name in wanted:
            self.shape(name)
        derived = {name: made for name, made in self.derived.items() if name in wanted}
        kept = {*wanted, *(made.base for made in derived.values())}
        raw = dict.fromkeys(derived[name].base if name in derived else name for name in wanted)
        pictures = Counter(self.shows[name] for name in raw if name in self.shows)
        shows = {name: picture for name in raw if pictures[picture := self.shows.get(name, "")] > 1}
        train, test, whole = (
            None if rows is None else Rows({n: x for n, x in rows.x.items() if n in kept}, rows.y)
            for rows in (self.train, self.test, self.whole)
        )
        assert train is not None
        assert test is not None
        return replace(self, train=train, test=test, whole=whole, derived=derived, shows=shows)

    def leader(self, name: str) -> str:
        """The first input of the picture that an input shows: the others take its draws; itself where it is alone."""
        return next((first for first, picture in self.shows.items() if picture == self.shows.get(name)), name)

    def alike(self, one: str, other: str) -> bool:
        """Whether two inputs show one picture in one form: they are made of one column, and have as many axes."""
        shown = [self.leader(self.derived[name].base if name in self.derived else name) for name in (one, other)]
        return shown[0] == shown[1] and len(self.shape(one)) == len(self.shape(other))

    def finish(
        self, raw: Mapping[str, Tensor], rng: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Raw values of some inputs as networks see them: derived inputs added, gaps masked, all normalised.

        Args:
            raw: input name to (N, ...) raw values, augmented already.
            rng: for derived inputs that draw; None for test rows.

        Returns:
            Input name to (N, ...) float32, and optional input name to (N,) bool, False where a row lacks it.
        """
        alike = Alike(self, rng)
        made = {name: d for name, d in self.derived.items() if d.base in raw}
        held = dict(raw) | {name: d.fn(raw[d.base], alike.draws(d.base)) for name, d in made.items()}
        present = {}
        for name in self.optional & held.keys():
            gaps = held[name].isnan()
            present[name] = ~gaps.flatten(1).any(1)
            held[name] = held[name].masked_fill(gaps, 0.0)
        return {name: self.transforms[name](values) for name, values in held.items()}, present

    def batch(self, raw: Rows, index: Tensor) -> Batch:
        """Raw rows as a batch, not augmented."""
        x, present = self.finish(raw.x)
        if isinstance(raw.y, Sentences):
            return raw.y.batch(x)
        return Batch(x, raw.y, index, present=present)

    def digest(self, part: str) -> str:
        """sha256 over the content of ``train`` or ``test``: names, shapes, types and values."""
        if part in self.digests:
            return self.digests[part]
        rows: Rows = getattr(self, part)
        digest = hashlib.sha256()
        for name, held in sorted(kept.columns(rows).items()):
            digest.update(f"y{name}:{len(held)}:{held.digest}".encode())
        for name, column in sorted({**rows.x, **target_tensors(rows.y)}.items()):
            digest.update(f"{name}:{tuple(column.shape)}:{column.dtype}".encode())
            if isinstance(column, Stored):
                digest.update(column.digest.encode())
            else:
                digest.update(np.ascontiguousarray(column.cpu().numpy()).tobytes())
        return digest.hexdigest()

    def identity(self) -> str:
        """sha256 over what decides what networks see of these rows: content, how it is read, normalisation, gaps."""
        columns: Mapping[str, Tensor | Stored] = self.train.x
        geometry = {
            name: [column.geometry.size, column.geometry.resize, column.frames]
            for name, column in columns.items()
            if isinstance(column, Stored)
        }
        facts = {
            "rows": {part: self.digest(part) for part in ("train", "test")},
            "seen": {name: [list(t.mean), list(t.std)] for name, t in self.transforms.items()},
            "geometry": geometry,
            "derived": {name: made.base for name, made in self.derived.items()},
            "optional": sorted(self.optional),
            "classes": self.classes,
            "label_range": self.label_range,
        }
        there = {*columns, *self.derived}
        if made := {name: dict(settings) for name, settings in self.made.items() if name in there}:
            facts["made"] = made
        return sha256(canonical_json(facts))

    def subset(self, rule: Subset | None, seed: int) -> Dataset:
        """The training rows a subset rule draws, stratified by class; of ``rows`` whatever they hold.

        Raises:
            UserError: a class, or the part, has fewer rows than asked for, or the task has no classes.
        """
        return self if rule is None else self._drawn(self._chosen(rule, seed, "data.subset"))

    def validated(self, rule: Subset | None) -> Dataset:
        """The same with training rows that a rule draws in the place of the test rows; the others are trained on.

        They are the same whatever the run's seed, 0 unless the rule gives one. Of rows without classes a fraction is of
        all.

        Raises:
            UserError: as of :meth:`subset`, or no row is left to train on, or none to score.
        """
        if rule is None:
            return self
        classes = self.label_range is None and isinstance(self.train.y, Tensor)
        if rule.fraction is not None and not classes:
            rule = rule.model_copy(update={"fraction": None, "rows": round(rule.fraction * len(self.train.y))})
        held = np.sort(self._chosen(rule, 0, "data.validation"))
        rest = np.setdiff1d(np.arange(len(self.train.y)), held)
        if not len(held) or not len(rest):
            raise UserError(
                f"data.validation: {len(held)} of the {len(self.train.y)} training rows of {self.name} would be scored "
                f"and {len(rest)} trained on; change data.validation"
            )
        train, test = (select(self.train, torch.from_numpy(rows)) for rows in (rest, held))
        drawn = hashlib.sha256(rest.astype("<i8").tobytes()).hexdigest()
        return replace(
            self, train=train, test=test, drawn=drawn, whole=None, digests={}, numbers=self._numbers_of(rest)
        )

    def _numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers among all training rows of some of these."""
        return rows if self.numbers is None else self.numbers[rows]

    def _chosen(self, rule: Subset, seed: int, key: str) -> NDArray[np.int64]:
        """Numbers of the training rows that a rule draws; ``key`` is the task's for it."""
        seed = seed if rule.seed is None else rule.seed
        stream = key.removeprefix("data.")
        if rule.rows is not None:
            return self._some(rule.rows, seed, key)
        if self.label_range is not None or not isinstance(self.train.y, Tensor):
            raise UserError(f"{key}: {self.name} has no classes to draw from; remove {key}")
        generator = np.random.default_rng(derive(seed, stream))
        labels = self.train.y.cpu().numpy()
        chosen = []
        for label in range(self.classes):
            rows = np.flatnonzero(labels == label)
            count = rule.per_class if rule.per_class is not None else round((rule.fraction or 0) * len(rows))
            if not 0 < count <= len(rows):
                asked = f"{rule.per_class} a class" if rule.per_class is not None else f"{rule.fraction:.0%} of them"
                raise UserError(
                    f"{key}: class {label} of {self.name} ({self.source}) has {len(rows)} training rows, {asked} "
                    f"are asked for; change {key}"
                )
            chosen.append(generator.permutation(rows)[:count])
        return np.concatenate(chosen)

    def _some(self, count: int, seed: int, key: str) -> NDArray[np.int64]:
        """Numbers of so many training rows."""
        if count > (there := len(self.train.y)):
            raise UserError(f"{key}: {self.name} has {there} training rows, {count} are asked for")
        return np.random.default_rng(derive(seed, key.removeprefix("data."))).permutation(there)[:count]

    def _drawn(self, rows: NDArray[np.int64]) -> Dataset:
        """The training rows of some numbers, in order."""
        index = np.sort(rows)
        return replace(
            self,
            train=select(self.train, torch.from_numpy(index)),
            drawn=hashlib.sha256(index.astype("<i8").tobytes()).hexdigest(),
            whole=self.train,
            digests={part: digest for part, digest in self.digests.items() if part != "train"},
            numbers=self._numbers_of(index),
        )

    def head(self, rows: int) -> Dataset:
        """At most ``rows`` training and test rows, evenly spread over each part, for a smoke run."""

        def some(part: Rows) -> Rows:
            count = min(rows, len(part.y))
            return select(part, torch.arange(count) * len(part.y) // count)

        return replace(self, train=some(self.train), test=some(self.test), digests={}, numbers=None)


class Alike:
    """Draws that are equal for all inputs of one picture: the first of them draws, the others from the same state.

    Args:
        rng: moves on as if each picture had one input; None where nothing is drawn.
    """

    def __init__(self, data: Dataset, rng: torch.Generator | None) -> None:
        self._data, self._rng = data, rng
        self._states: dict[str, Tensor] = {}

    def draws(self, name: str) -> torch.Generator | None:
        """The generator for an input, in turn for each."""
        rng, leader = self._rng, self._data.leader(name)
        if rng is None or name not in self._data.shows:
            return rng
        if leader not in self._states:
            self._states[leader] = rng.get_state()
            return rng
        again = torch.Generator(rng.device)
        again.set_state(self._states[leader])
        return again


def target_tensors(y: Any) -> dict[str, Tensor]:
    """The tensors that targets hold, by name: ``y`` itself where it is one."""
    return {"y": y} if isinstance(y, Tensor) else {f"y.{name}": held for name, held in y.tensors().items()}


def device_of(y: Any) -> torch.device:
    """Where targets lie."""
    return next(iter(target_tensors(y).values())).device


def take(rows: Rows, index: Tensor) -> Rows:
    """Rows by number, read from disk where they are stored there; test geometry, nothing drawn."""
    return Rows({name: column[index] for name, column in rows.x.items()}, rows.y[index])


def select(rows: Rows, index: Tensor) -> Rows:
    """Rows by number; stored columns stay on disk."""
    x = {name: column.select(index) if isinstance(column, Stored) else column[index] for name, column in rows.x.items()}
    return Rows(x, kept.chosen(rows.y, index))
