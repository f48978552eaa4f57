"""Card + task + overrides -> one frozen, typed run configuration.

Hydra composes, pydantic types and freezes. A person types ``key=value`` only; the other forms that Hydra would accept
are refused first, each with one line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from kdbench import ENGINE_VERSION, kinds
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import canonical_json, sha256
from kdbench.base.privacy import scrub_values
from kdbench.base.yamlfile import describe
from kdbench.specs import overrides as overrides_help
from kdbench.specs import registry
from kdbench.specs.card import Card
from kdbench.specs.options import EAGER, PREFIX, EngineOptions
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import ALL_KEYS, TaskSpec

ENGINE = PREFIX.removesuffix(".")
LONGEST = 2000
"""Characters of an override."""
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
    """

    method: MethodConfig
    task: TaskSpec
    custom: bool = False
    own_protocol: bool = False
    smoke: bool = False
    overrides: tuple[str, ...] = ()
    match: Match | None = None
    engine: EngineOptions = EAGER

    def spec(self) -> dict[str, Any]:
        """What :attr:`spec_hash` covers, as JSON data; paths of this machine are scrubbed, for records hold it."""
        return scrub_values(self._spec())

    def _spec(self) -> dict[str, Any]:
        return {
            "method": self.method.ref.card.name,
            "variant": self.method.ref.name if self.method.ref.variant else None,
            "params": self.method.plain_params(),
            "task": {"name": self.task.name, "version": self.task.version},
            "protocol": self.task.model_dump(mode="json", include={"data", "pair", "train", "score"}),
            "smoke": self.smoke_budget(),
            "engine_version": ENGINE_VERSION,
            **({"engine": changed} if (changed := self.engine.changed()) else {}),
        }

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

    @property
    def step_hash(self) -> str:
        """:attr:`spec_hash` of the configuration whose steps these are: a compute-matched run takes its base's."""
        if self.match is None:
            return self.spec_hash
        base = run_config(self.method.ref.card.name, self.task.name, self.overrides, smoke=self.smoke)
        return base.spec_hash


def run_config(
    method: str, task: str, overrides: Sequence[str] = (), *, smoke: bool = False, match: Match | None = None
) -> RunConfig:
    """The configuration of a run.

    Args:
        method: a method or variant.
        task: a task.
        overrides: ``key=value``; task keys at the root, the method's under ``method.``, options under ``engine.``.
        smoke: use the task's and the card's smoke budget.
        match: for a compute-matched variant such as ``plain@kd``; without it the task's own length stands in.

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
    parsed = _checked(rest)
    node = dict(values)
    inner_ref = None
    if values.get(INNER) is not None and _has_inner(ref.card):
        inner_ref = registry.method(values[INNER])
        node[INNER] = _resolve(inner_ref, spec, smoke)[0]
    own = ref.variant.own_protocol if ref.variant else {}
    body = spec.model_dump(mode="json", exclude={"name"}, context=ALL_KEYS)
    if kinds.metrics()[spec.score.primary].unit is not None:
        del body["score"]["unit"]  # follows from the metric, also from an overridden one
    composed = _compose({"method": node, ENGINE: EAGER.model_dump(), **body}, parsed)
    composed_method, engine = composed.pop("method"), _options(composed.pop(ENGINE))
    for key, value in own.items():
        if not any(override.key_or_group == key for override in parsed):
            _assign(composed, key, value)
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
        method=MethodConfig(ref, _typed(ref.card, composed_method), source, inner),
        task=final,
        custom=inner_name is not None or any(not override.key_or_group.startswith(PREFIX) for override in parsed),
        own_protocol=bool(own),
        smoke=smoke,
        overrides=tuple(overrides),
        match=match,
        engine=engine,
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
    own = [override for override in _checked(overrides) if override.key_or_group.startswith(PREFIX)]
    return _options(_compose({ENGINE: EAGER.model_dump()}, own)[ENGINE])


def _options(values: dict[str, Any]) -> EngineOptions:
    try:
        return EngineOptions.model_validate(values)
    except ValidationError as error:
        raise UserError(f"override {PREFIX}{describe(error, EngineOptions)}") from error


def _has_inner(card: Card) -> bool:
    return INNER in card.hyper_parameters and card.hyper_parameters[INNER].kind == "method"


def _resolve(ref: MethodRef, spec: TaskSpec, smoke: bool) -> tuple[dict[str, Any], str]:
    """Defaults, published values of the pair, the variant's values and its published ones, the card's smoke values."""
    card = ref.card
    pair = {"task": spec.name, "source": spec.data.source, "student": spec.pair.student.net}
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


def _checked(overrides: Sequence[str]) -> list[Override]:
    """Parsed overrides of the one form people may type.

    Raises:
        UserError: any other form.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        plain = f"override {text!r}: "
        if len(text) > LONGEST:
            raise UserError(plain + f"longer than {LONGEST} characters")
        if "${" in text:
            raise UserError(plain + "'${' would read the environment; write the value itself")
        try:
            override = parser.parse_override(text)
        except (HydraException, ValueError, RecursionError) as error:
            raise UserError(plain + overrides_help.how_to_type(text, _taken)) from error
        if override.type is not OverrideType.CHANGE:
            raise UserError(plain + "only key=value is taken; keys can be neither added (+) nor removed (~)")
        if override.is_sweep_override():
            raise UserError(
                plain + "one value is taken, not several to sweep; use --seeds for seeds, `[1,2]` for a list"
                + ("; " + overrides_help.how_to_type(text, _taken) if "/" in text else "")
            )  # fmt: skip
        if isinstance(override.value(), dict) and not overrides_help.is_one_value(TaskSpec, override.key_or_group):
            words = " ".join(overrides_help.one_by_one(override.key_or_group, override.value()))
            how = words or f"{override.key_or_group}=null"
            raise UserError(plain + f"a whole group cannot be set at once, its keys are set one by one; type {how}")
        parsed.append(override)
    return parsed


def _taken(text: str) -> bool:
    """Whether an override is of the one form that people may type."""
    try:
        override = OverridesParser.create().parse_override(text)
        return override.type is OverrideType.CHANGE and not override.is_sweep_override()
    except (HydraException, ValueError, RecursionError):
        return False


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Dotted keys of all leaves; an empty mapping is a leaf."""
    if not isinstance(config, dict) or not config:
        return [prefix]
    return [leaf for key, value in config.items() for leaf in _keys(value, f"{prefix}.{key}" if prefix else str(key))]


def _compose(node: dict[str, Any], overrides: list[Override]) -> dict[str, Any]:
    """The node with overrides applied: what unsets a group, then keys that are there, then those of unset groups."""
    unset = [o for o in overrides if o.value() is None and overrides_help.may_be_unset(TaskSpec, o.key_or_group)]
    composed = _applied(node, unset)
    leaves = set(_keys(composed))
    now = [o for o in overrides if o not in unset and o.key_or_group in leaves]
    later = [o for o in overrides if o not in unset and o.key_or_group not in leaves]
    composed = _applied(composed, now)
    overrides_help.open_groups(composed, TaskSpec, [o.key_or_group for o in later])
    _require_known([*now, *later], _keys(composed))
    return _applied(composed, later)


def _require_known(overrides: Sequence[Override], leaves: Sequence[str]) -> None:
    """Raises UserError for a key there is not, or a group that is set at once."""
    for override in overrides:
        key, plain = override.key_or_group, f"override {override.input_line!r}: "
        below = [leaf for leaf in leaves if leaf.startswith(f"{key}.")] or overrides_help.group_keys(TaskSpec, key)
        if below and overrides_help.is_one_value(TaskSpec, key):
            continue  # written as a mapping
        if below:
            raise UserError(plain + f"{key!r} is a group; set one of {', '.join(below[:6])}")
        if key not in leaves:
            raise UserError(plain + f"no key {key!r} here{nearest(key, leaves)}; `kdbench show` lists them")


def _applied(node: dict[str, Any], overrides: list[Override]) -> dict[str, Any]:
    """The node with overrides of its keys applied by Hydra."""
    if not overrides:  # composing takes 0.1 s, and a sweep plans thousands of runs
        return OmegaConf.to_container(OmegaConf.create(node), resolve=False)  # type: ignore[return-value]
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="run", node=OmegaConf.create(node))
    try:
        with initialize(version_base="1.3", config_path=None):
            config = compose("run", overrides=[_line(override) for override in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"overrides cannot be applied: {str(error).splitlines()[0]}") from error
    finally:
        GlobalHydra.instance().clear()
    assert isinstance(config, DictConfig)
    return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def _assign(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted key of a variant's own protocol.

    Raises:
        UserError: the card names a key that tasks do not have.
    """
    overrides_help.open_groups(config, TaskSpec, [dotted])
    *parents, last = dotted.split(".")
    for part in parents:
        config = config.get(part) or {}
    if last not in config:
        raise UserError(f"own_protocol key {dotted!r} is not a key of tasks")
    config[last] = value
