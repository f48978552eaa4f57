"""Overrides of the one form people may type, in Hydra's grammar, and a mapping with them applied."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdbench.base.errors import UserError, nearest
from kdbench.specs import overrides as overrides_help
from kdbench.specs.pair import AUTO
from kdbench.specs.protocol import TrainChange
from kdbench.specs.task import TaskSpec

LONGEST = 2000
"""Characters of an override."""


def read_overrides(overrides: Sequence[str]) -> list[Override]:
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
        if override.type is not OverrideType.CHANGE or override.package is not None:
            raise UserError(plain + "only key=value is taken; keys can be neither added (+), removed (~) nor moved (@)")
        if override.is_sweep_override():
            raise UserError(
                plain + "one value is taken, not several to sweep; use --seeds for seeds, `[1,2]` for a list"
                + ("; " + overrides_help.how_to_type(text, _taken) if "/" in text else "")
            )  # fmt: skip
        if part := overrides_help.unhashed(TaskSpec, override.key_or_group):
            raise UserError(
                plain
                + f"{part} decides nothing of a run, so that one with it would be taken for one without; write it "
                "into a task's file of yours, and name that with --task"
            )
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


def compose_with(node: dict[str, Any], overrides: list[Override]) -> dict[str, Any]:
    """The node with overrides applied: what unsets a group, then keys that are there, then those of unset groups."""
    unset = [o for o in overrides if o.value() is None and overrides_help.may_be_unset(TaskSpec, o.key_or_group)]
    composed = _applied(node, unset)
    leaves = set(_keys(composed))
    now = [o for o in overrides if o not in unset and o.key_or_group in leaves]
    later = [o for o in overrides if o not in unset and o.key_or_group not in leaves]
    composed = _applied(composed, now) if now else composed
    mappings = [(o.key_or_group, value) for o in later if isinstance(value := o.value(), dict)]
    inside = [f"{key}.{name}" for key, value in mappings for name in value]
    overrides_help.open_groups(composed, TaskSpec, [*(o.key_or_group for o in later), *inside])
    _require_known([*now, *later], _keys(composed))
    return _applied(composed, later) if later else composed


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
    """A copy of the node with overrides of its keys applied.

    As ``hydra.compose`` does it, but for the configuration of Hydra itself that it would make anew each time: that
    takes 10 times as long as all the rest, and a sweep plans thousands of runs. Parts that nobody overrides are not
    read for ``${``, which may stand in a title.
    """
    touched = {override.key_or_group.partition(".")[0] for override in overrides}
    try:
        config = OmegaConf.create({part: node[part] for part in touched if part in node})
        OmegaConf.set_struct(config, True)
        for override in overrides:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException as error:
        raise UserError(f"overrides cannot be applied: {str(error).splitlines()[0]}") from error
    applied = copy.deepcopy(node)
    applied.update(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    return applied


def hold_teachers(config: dict[str, Any], keys: Iterable[str]) -> None:
    """Before a variant's own protocol is set: teachers keep what they take of the task's, for it is its student's."""
    for part, field in (key.split(".")[:2] for key in keys if "." in key):
        if part == TrainChange.STANDS_FOR and field in config[part]:
            for teacher in config["pair"]["teachers"].values():
                if teacher["weights"] == AUTO and teacher["train"].get(field) is None:
                    teacher["train"][field] = copy.deepcopy(config[part][field])


def assign(config: dict[str, Any], dotted: str, value: Any) -> None:
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
