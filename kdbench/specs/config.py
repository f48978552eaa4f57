"""Card + task + overrides -> one frozen, typed run configuration.

Overrides are of Hydra's grammar, pydantic types and freezes. A person types ``key=value`` only; the other forms that
Hydra would accept are refused first, each with one line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kdbench import ENGINE_VERSION, kinds
from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256
from kdbench.base.privacy import scrub_values
from kdbench.base.yamlfile import describe
from kdbench.specs import registry
from kdbench.specs.block import ALL_KEYS
from kdbench.specs.card import Card
from kdbench.specs.compose import assign, compose_with, hold_teachers, read_overrides
from kdbench.specs.options import EAGER, PREFIX, EngineOptions
from kdbench.specs.overrides import as_words
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import AS_PUBLISHED, TUNED, Tuned

ENGINE = PREFIX.removesuffix(".")
INNER = "inner"
"""The hyper-parameter of type ``method``: an inner method, whose own parameters stand below it."""
NET = "net"
"""The type of a hyper-parameter that names a net which the method builds, see ``TaskInfo.build_net``."""


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """A method and the values of its hyper-parameters; ``inner`` is set for a method built around another."""

    ref: MethodRef
    params: dict[str, Any]
    params_source: str
    inner: MethodConfig | None = None

    def plain_params(self) -> dict[str, Any]:
        """All values as JSON data, those of an inner method below ``inner``."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in self.params.items()}
        if self.inner is not None:
            values[INNER] = {"name": self.inner.ref.name, **self.inner.plain_params()}
        return values

    def nets(self) -> list[str]:
        """The nets that its hyper-parameters name, those of an inner method too."""
        kinds = {key: hp.kind for key, hp in self.ref.card.hyper_parameters.items()}
        own = [str(value) for key, value in self.params.items() if kinds.get(key) == NET and value is not None]
        return own + (self.inner.nets() if self.inner is not None else [])


@dataclasses.dataclass(frozen=True)
class Match:
    """The cell whose recipe cost, over plain's, a compute-matched run takes over."""

    method: str
    ratio: float
    spec_hash: str


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result but its seed and its machine.

    Attributes:
        custom: the user overrode something that decides what is computed; never ranked.
        own_protocol: the variant trains by a protocol of its own; listed apart.
        smoke: cut down to see that it runs; never ranked.
        tuned: the search whose values it takes, None for published ones.
    """

    method: MethodConfig
    task: TaskSpec
    custom: bool = False
    own_protocol: bool = False
    smoke: bool = False
    overrides: tuple[str, ...] = ()
    match: Match | None = None
    engine: EngineOptions = EAGER
    tuned: Tuned | None = None

    @property
    def ruleset(self) -> str:
        """What its results are compared under."""
        return AS_PUBLISHED if self.tuned is None else self.tuned.ruleset

    def spec(self) -> dict[str, Any]:
        """What :attr:`spec_hash` covers, as JSON data; paths of this machine are scrubbed, for records hold it.

        ``protocol`` is what all methods of a ruleset share; what a search set in its place stands in ``searched``.
        """
        return scrub_values(self._spec())

    def _spec(self) -> dict[str, Any]:
        return {
            "method": self.method.ref.card.name,
            "variant": self.method.ref.name if self.method.ref.variant else None,
            "params": self.method.plain_params(),
            "task": {"name": self.task.name, "version": self.task.version},
            "protocol": self._shared().model_dump(mode="json", include={"data", "pair", "train", "score"}),
            "smoke": self.smoke_budget(),
            "engine_version": ENGINE_VERSION,
            **({"engine": changed} if (changed := self.engine.changed()) else {}),
            **({"searched": {"ruleset": self.ruleset, "values": dict(self.tuned.values)}} if self.tuned else {}),
        }

    def _shared(self) -> TaskSpec:
        """The task without what a search set."""
        if self.tuned is None:
            return self.task
        return run_config(self.method.ref.name, self.task.name, self.overrides, smoke=self.smoke).task

    def nets(self) -> list[str]:
        """The nets that its task and its hyper-parameters name."""
        pair = self.task.pair
        found = [pair.student.net, *(teacher.net for teacher in pair.teachers.values()), *self.method.nets()]
        return list(dict.fromkeys(found))

    def smoke_budget(self) -> dict[str, int] | None:
        """The smoke budget in force."""
        return self.task.smoke.model_dump() if self.smoke else None

    @property
    def spec_hash(self) -> str:
        """sha256 of the canonical JSON of :meth:`spec`: equal for runs that may be compared seed by seed."""
        return sha256(canonical_json(self.spec()))

    def require_unseen(self, seeds: Sequence[int]) -> None:
        """Raises UserError where seeds of a result are those that its values were chosen by."""
        if self.tuned is not None and (both := sorted({*seeds} & {*self.tuned.seeds})):
            raise UserError(
                f"{self.method.ref.name} on {self.task.name}: seed {', '.join(map(str, both))} chose the values of "
                f"ruleset {self.ruleset}; results need others"
            )

    @property
    def step_hash(self) -> str:
        """:attr:`spec_hash` of the configuration whose steps these are: a compute-matched run takes its base's."""
        if self.match is None:
            return self.spec_hash
        base = run_config(self.method.ref.card.name, self.task.name, self.overrides, smoke=self.smoke)
        return base.spec_hash


def run_config(
    method: str,
    task: str,
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
    match: Match | None = None,
    tuned: Tuned | None = None,
) -> RunConfig:
    """The configuration of a run.

    Args:
        method: a method or variant.
        task: a task.
        overrides: ``key=value``; task keys at the root, the method's under ``method.``, options under ``engine.``.
        smoke: use the task's and the card's smoke budget.
        match: for a compute-matched variant such as ``plain@kd``; without it the task's own length stands in.
        tuned: the search whose values stand in place of published ones.

    Raises:
        UserError: unknown names or keys (with the nearest right one), wrong values, refused override forms.
    """
    ref, spec = registry.method(method), registry.task(task)
    inner_name, rest = _inner_name(ref, overrides)
    values, source = _resolve(ref, spec, smoke)
    if match is not None and ref.variant is not None and ref.variant.matched is not None:
        values[ref.variant.matched] = match.ratio
    if inner_name is not None:
        values[INNER] = inner_name
    own_words = read_overrides(rest)
    parsed = [*own_words, *read_overrides(as_words(tuned.values if tuned is not None else {}))]
    node = dict(values)
    inner_ref = None
    if values.get(INNER) is not None and _has_inner(ref.card):
        inner_ref = registry.method(values[INNER])
        node[INNER] = _resolve(inner_ref, spec, smoke)[0]
    own = ref.variant.own_protocol if ref.variant else {}
    body = spec.model_dump(mode="json", exclude={"name"}, context=ALL_KEYS)
    if kinds.metrics()[spec.score.primary].unit is not None:
        del body["score"]["unit"]  # follows from the metric, also from an overridden one
    composed = compose_with({"method": node, ENGINE: EAGER.model_dump(), **body}, parsed)
    composed_method, engine = composed.pop("method"), _options(composed.pop(ENGINE))
    own = {key: value for key, value in own.items() if not any(override.key_or_group == key for override in parsed)}
    if any("teacher" in need.split() for need in _needs(ref)):
        hold_teachers(composed, own)
    for key, value in own.items():
        assign(composed, key, value)
    try:
        final = TaskSpec.model_validate({"name": task, **composed})
    except ValidationError as error:
        raise UserError(f"{method} on {task}: {describe(error, TaskSpec)}") from error
    inner = None
    if inner_ref is not None:
        inner_values = composed_method.pop(INNER)
        inner = MethodConfig(inner_ref, _typed(inner_ref.card, inner_values), "default")
        composed_method[INNER] = inner_ref.name
    return RunConfig(
        method=MethodConfig(ref, _typed(ref.card, composed_method), source if tuned is None else TUNED, inner),
        task=final,
        custom=inner_name is not None or any(not override.key_or_group.startswith(PREFIX) for override in own_words),
        own_protocol=bool(ref.variant and ref.variant.own_protocol),
        smoke=smoke,
        overrides=tuple(overrides),
        match=match,
        engine=engine,
        tuned=tuned,
    )


def method_config(
    ref: MethodRef, values: Mapping[str, Any], of_inner: Callable[[MethodRef], Mapping[str, Any]] = lambda ref: {}
) -> MethodConfig:
    """A method away from any task: the card's defaults, its variant's values, then ``values``.

    Args:
        of_inner: what an inner method gets as ``values``.

    Raises:
        UserError: a hyper-parameter there is not, or a wrong value.
    """
    chosen = ref.card.defaults() | (ref.variant.params if ref.variant else {}) | dict(values)
    inner = None
    if chosen.get(INNER) is not None and _has_inner(ref.card):
        inner_ref = registry.method(chosen[INNER])
        inner = method_config(inner_ref, of_inner(inner_ref), of_inner)
    return MethodConfig(ref, _typed(ref.card, chosen), "default", inner)


def engine_options(overrides: Sequence[str]) -> EngineOptions:
    """The engine options among overrides.

    Raises:
        UserError: an option there is not, a wrong value, a refused form of any of the overrides.
    """
    own = [override for override in read_overrides(overrides) if override.key_or_group.startswith(PREFIX)]
    return _options(compose_with({ENGINE: EAGER.model_dump()}, own)[ENGINE])


def _options(values: dict[str, Any]) -> EngineOptions:
    try:
        return EngineOptions.model_validate(values)
    except ValidationError as error:
        raise UserError(f"override {PREFIX}{describe(error, EngineOptions)}") from error


def _needs(ref: MethodRef) -> Sequence[str]:
    given = ref.variant.needs if ref.variant else None
    return ref.card.needs if given is None else given


def _has_inner(card: Card) -> bool:
    return INNER in card.hyper_parameters and card.hyper_parameters[INNER].kind == "method"


def _resolve(ref: MethodRef, spec: TaskSpec, smoke: bool) -> tuple[dict[str, Any], str]:
    """Defaults, published values of the pair, the variant's values and its published ones, the card's smoke values."""
    card = ref.card
    pair = {"kind": spec.kind, "task": spec.name, "source": spec.data.source, "student": spec.pair.student.net}
    values = card.defaults()
    published, source = card.for_pair(**pair, teacher=spec.teacher_net)
    values |= published
    if ref.variant is not None:
        published, own_source = card.for_pair(**pair, teacher=spec.teacher_net, variant=ref.name)
        values |= ref.variant.params | published
        source = own_source or source
    if smoke:
        values |= card.smoke
    return {key: card.check(key, value) for key, value in values.items()}, source or "default"


def _typed(card: Card, values: dict[str, Any]) -> dict[str, Any]:
    return {key: card.check(key, value) for key, value in values.items()}


def _inner_name(ref: MethodRef, overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """The inner method a user names, and the overrides left: it decides which keys exist below ``method.inner``."""
    prefix = f"method.{INNER}="
    if not _has_inner(ref.card):
        return None, list(overrides)
    named = [text.removeprefix(prefix) for text in overrides if text.startswith(prefix)]
    return (named[-1] if named else None), [text for text in overrides if not text.startswith(prefix)]
