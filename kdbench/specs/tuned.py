"""What a search of hyper-parameters left, as an entry a method, task and ruleset: in the home, or beside a card.

A ruleset says by which hyper-parameters methods are compared: those that are published, or those that a search of
equal size found for each. Results of different rulesets are never compared.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from kdbench import ENGINE_VERSION
from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.fields import (
    Amount,
    Count,
    DeviceClassName,
    MethodName,
    Part,
    Positive,
    RunId,
    Settings,
    Slug,
    TaskName,
    Time,
    Unit,
    Version,
    Word,
)
from kdbench.base.files import canonical_json, sha256, write_atomic
from kdbench.base.home import Home
from kdbench.base.yamlfile import describe
from kdbench.specs import registry
from kdbench.specs.options import PREFIX

if TYPE_CHECKING:
    from kdbench.specs.config import RunConfig

AS_PUBLISHED, TUNED = "published", "tuned"
"""The ruleset of published hyper-parameters, and what the names of the others begin with."""
RULESET = re.compile(
    rf"{AS_PUBLISHED}|{TUNED}(-(?P<trials>[1-9]\d*)(x(?P<seeds>[2-9]|[1-9]\d+))?(-(?P<sampler>tpe))?)?"
)
"""What may be asked for: ``tuned`` stands for the one ruleset of searched values that there is."""
SEEDS = (1000,)
"""Of trials, where no others are asked for; no task's results have them."""
FOLDER = "tuned"
"""Beside a card, and in a home."""
Sampler = Literal["qmc", "tpe"]
"""``qmc``: a Sobol sequence, the same for all methods in the dimensions that they share; ``tpe`` learns from trials."""


def ruleset_of(trials: int, seeds: int, sampler: str) -> str:
    """The ruleset of a search's results, which says all that its budget is.

    ``tuned-8`` of eight trials, ``tuned-8x3`` where each was scored on three seeds, ``tuned-8-tpe`` where trials were
    chosen by those before.
    """
    return f"{TUNED}-{trials}" + (f"x{seeds}" if seeds > 1 else "") + ("" if sampler == "qmc" else f"-{sampler}")


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a run takes over from a search.

    Attributes:
        trials, sampler, seeds, hours: of the search.
        entry: hash of the entry.
        values: what sets the best values, by key; nothing where the given ones were the best.
    """

    trials: int
    sampler: Sampler
    seeds: tuple[int, ...]
    hours: float
    entry: str
    values: Mapping[str, Any] = dataclasses.field(hash=False)

    @property
    def ruleset(self) -> str:
        """What the run is compared under."""
        return ruleset_of(self.trials, len(self.seeds), self.sampler)


class TaskSearched(Part):
    """The task whose rows were scored."""

    name: TaskName
    version: Positive


class Searched(Part):
    """Where a setting was looked for: between two ends, or among choices; ``given`` is its value without a search."""

    given: JsonValue
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[JsonValue, ...] | None = None


class TrialKept(Part):
    """Values of the searched settings, and what they scored on the validation rows, by seed; ``hours`` of training.

    ``score`` is the mean, null where a seed has none.
    """

    values: Settings
    score: float | None
    scores: dict[Word, float]
    run_ids: tuple[RunId, ...]
    hours: Amount


class TunedEntry(Part):
    """A search and the best values that it found.

    Attributes:
        cards: version of the method's card, and of the one inside it.
        validation: rule by which the rows that were scored are drawn from the training rows.
        overrides: of all trials, by the user.
        smoke: trials were cut down: only runs that are cut down take the values.
        searched: each setting that was searched, by the key that sets it.
        trials: in order; the first has the given values.
        best: number of the best trial; ``values`` is what sets it, nothing for the first.
        hours: of the training of all trials that have a score, on ``device_class``; a teacher's is in none.
    """

    schema_version: Literal[1] = 1
    method: MethodName
    task: TaskSearched
    cards: dict[MethodName, Version]
    engine_version: Positive
    kdbench_version: Word
    validation: Settings
    overrides: tuple[Word, ...] = ()
    smoke: bool = False
    metric: Slug
    unit: Unit = ""
    higher_is_better: bool
    sampler: Sampler
    seeds: tuple[Count, ...] = Field(min_length=1)
    searched: dict[Word, Searched]
    trials: tuple[TrialKept, ...] = Field(min_length=1)
    best: Count
    values: Settings
    hours: Amount
    device_class: DeviceClassName | None = None
    at: Time

    @property
    def ruleset(self) -> str:
        """What results with these values are compared under."""
        return ruleset_of(len(self.trials), len(self.seeds), self.sampler)

    @property
    def tuned(self) -> Tuned:
        """What a run takes over."""
        digest = sha256(canonical_json(self.model_dump(mode="json")))
        return Tuned(len(self.trials), self.sampler, self.seeds, self.hours, digest, self.values)

    @property
    def place(self) -> Path:
        """Where it lies below the folder of entries; a search by other overrides, or cut down, lies beside."""
        own = self_made(self.overrides)
        marks = [self.ruleset, *(["smoke"] if self.smoke else []), *([sha256(canonical_json(own))[:8]] if own else [])]
        return Path(self.task.name.replace("/", "__")) / f"{self.method}.{'.'.join(marks)}.json"

    @model_validator(mode="after")
    def _best_is_the_best(self) -> Self:
        sign = 1 if self.higher_is_better else -1
        for number, trial in enumerate(self.trials):
            mean = fmean(trial.scores.values()) if len(trial.scores) == len(self.seeds) else None
            if mean != trial.score:
                raise ValueError(f"trials.{number}.score is {trial.score}, its seeds give {mean}")
        scores = [sign * trial.score if trial.score is not None else None for trial in self.trials]
        known = [score for score in scores if score is not None]
        if not known or scores.index(max(known)) != self.best:
            raise ValueError(f"best is {self.best}, which is not the first trial of the best score")
        if self.best == 0 and self.values:
            raise ValueError("values are set although the given ones were the best")
        tried = self.trials[self.best].values
        if self.best and any(self.values.get(key) != tried[key] for key in self.searched):
            raise ValueError(f"values are not those of trial {self.best}")
        return self

    def changes(self, config: RunConfig) -> list[str]:
        """What has changed since the search, for a run as it would be now: values of other times are no answer."""
        here = cards_of(config)
        found: list[tuple[str, str, int | str, int | str]]
        found = [("task", self.task.name, self.task.version, config.task.version)]
        found += [("card", name, version, here.get(name, "none")) for name, version in self.cards.items()]
        found.append(("engine", "", self.engine_version, ENGINE_VERSION))
        return [
            f"{what} {name} was version {then} and is {now}".replace("  ", " ")
            for what, name, then, now in found
            if then != now
        ]


def cards_of(config: RunConfig) -> dict[str, str]:
    """Card to version: the method's, and that of the method inside it."""
    own, inner = config.method.ref.card, config.method.inner
    return {own.name: own.version} | ({inner.ref.card.name: inner.ref.card.version} if inner is not None else {})


def self_made(overrides: Iterable[str]) -> list[str]:
    """The overrides that decide what is computed, in order: options of the engine do not."""
    return sorted(word for word in overrides if not word.startswith(PREFIX))


def read(path: Path) -> TunedEntry:
    """The entry of a file.

    Raises:
        UserError: it cannot be read, or is none.
    """
    try:
        return TunedEntry.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise UserError(f"{path} is no tuned entry: {describe(error, TunedEntry)}") from error


def keep(entry: TunedEntry, home: Home) -> Path:
    """Writes an entry into a home, in place of an earlier one of the same search; the file."""
    path = home.tuned / entry.place
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, entry.model_dump_json(indent=1) + "\n")
    return path


def asked_of_tune(ruleset: str) -> list[str]:
    """The options of ``kdbench tune`` that make a search of this ruleset; none for ``tuned``."""
    form = RULESET.fullmatch(ruleset)
    wanted = form.groupdict() if form is not None else {}
    if (seeds := wanted.get("seeds")) is not None:
        wanted["seeds"] = f"{SEEDS[0]}-{SEEDS[0] + int(seeds) - 1}"
    return [word for name, value in wanted.items() if value is not None for word in (f"--{name}", value)]


def require_ruleset(ruleset: str) -> None:
    """Raises UserError for what is no ruleset."""
    if not RULESET.fullmatch(ruleset):
        raise UserError(f"no ruleset {ruleset!r}; {AS_PUBLISHED}, {TUNED}, or one of so many trials such as {TUNED}-8")


def find(config: RunConfig, ruleset: str, home: Home) -> Tuned | None:
    """What a run takes over from the search of its method on its task: that of the home, else one beside the card.

    Args:
        config: of the run without searched values.
        ruleset: ``published``, for which there is nothing; ``tuned``, for the one that there is; or one by its name.

    Raises:
        UserError: there is no search, several or one of other versions.
    """
    require_ruleset(ruleset)
    if ruleset == AS_PUBLISHED:
        return None
    method, task = config.method.ref.name, config.task.name
    if config.method.ref.match is not None:
        raise UserError(f"{method} takes its length from results as published; there is none of ruleset {ruleset}")
    there = _searches(config, home)
    found = {name: kept for name, kept in there.items() if ruleset in (TUNED, name)}
    if not found:
        others = f"; there are {', '.join(there)}" if there else ""
        own = self_made(config.overrides)
        under = f" searched with {' '.join(own)}" if own else ""
        words = ["--method", method, "--task", task, *asked_of_tune(ruleset), *map(shlex.quote, own)]
        raise UserError(
            f"{method} on {task}: no values of ruleset {ruleset}{under}{others}; "
            f"`kdbench tune {' '.join(words)}` searches them"
        )
    if len(found) > 1:
        raise UserError(f"{method} on {task}: searches of several sizes; name one with --ruleset: {', '.join(found)}")
    ((path, entry),) = found.values()
    if changed := entry.changes(config):
        raise UserError(f"{path}: {' and '.join(changed)} since the search; `kdbench tune` searches again")
    return entry.tuned


def _searches(config: RunConfig, home: Home) -> dict[str, tuple[Path, TunedEntry]]:
    """Ruleset to the entry whose values a run may take: of the same overrides, cut down only where the run is."""
    place = config.task.name.replace("/", "__")
    folders = [home.tuned, plugins.package_folder(config.method.ref.package) / FOLDER]
    paths = [path for folder in folders for path in sorted((folder / place).glob(f"{config.method.ref.name}.*.json"))]
    found: dict[str, tuple[Path, TunedEntry]] = {}
    for path in sorted(paths, key=lambda path: config.smoke != (".smoke." in path.name)):
        entry = read(path)
        same = (entry.method, entry.task.name) == (config.method.ref.name, config.task.name)
        if same and self_made(entry.overrides) == self_made(config.overrides) and entry.smoke in (False, config.smoke):
            found.setdefault(entry.ruleset, (path, entry))
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True)
class Listed:
    """An entry and its file; ``changed`` says what keeps runs here from taking its values, "" where nothing does."""

    path: Path
    entry: TunedEntry
    changed: str


def listed(ruleset: str, home: Home) -> list[Listed]:
    """All entries of a ruleset, of any search for ``tuned``: those of a home first, then those beside cards.

    Raises:
        UserError: a file is no entry.
    """
    packages = sorted({ref.package for ref in registry.methods().values()})
    folders = [home.tuned, *(plugins.package_folder(package) / FOLDER for package in packages)]
    paths = [path for folder in folders for path in sorted(folder.glob("*/*.json"))]
    entries = [(path, read(path)) for path in paths]
    return [Listed(path, entry, _why_not(entry)) for path, entry in entries if ruleset in (TUNED, entry.ruleset)]


def _why_not(entry: TunedEntry) -> str:
    from kdbench.specs.config import run_config

    try:
        config = run_config(entry.method, entry.task.name, entry.overrides, smoke=entry.smoke)
    except UserError as error:
        return str(error)
    return " and ".join(entry.changes(config))
