"""What a recorded run was set to: its protocol, and what was overridden. Needs no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256
from kdbench.records.files import Record

METHOD = "method"
"""What the keys of a method's hyper-parameters start with on the command line."""
INNER = "inner"
ABSENT = object()


def known_by(record: Record) -> dict[str, Any]:
    """What the index keeps of a record's settings, to tell which runs may be compared.

    Returns:
        ``protocol``: hash of the data, pair, training and score; ``student_protocol``: the same with the pair's
        student alone; ``own_params``: whether a hyper-parameter was overridden; ``ruleset``.
    """
    protocol = record.provenance.config_resolved.get("protocol")
    whole: Mapping[str, Any] = protocol if isinstance(protocol, Mapping) else {}
    pair = whole.get("pair")
    alone = dict(whole)
    if isinstance(pair, Mapping):
        alone["pair"] = pair.get("student")
    return {
        "protocol": sha256(canonical_json(whole)),
        "student_protocol": sha256(canonical_json(alone)),
        "own_params": any(key.startswith(f"{METHOD}.") for key in told(record.provenance.command)),
        "ruleset": record.ruleset,
    }


def told(command: str) -> dict[str, Any]:
    """The overrides in a recorded command, as they were typed: key to value."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that was never closed
        words = command.split()
    pairs = (word.partition("=") for word in words if "=" in word and not word.startswith("-"))
    return {key: value for key, _, value in pairs}


def overrides(record: Record) -> dict[str, Any]:
    """In which settings a run differs from the method's and the task's own here, by the key that sets them.

    Of an overridden run those that its command names, if it names any. Of a method or task that is not registered here
    what the command says.
    """
    spec = record.provenance.config_resolved
    inner = _inner(spec)
    try:
        own = default_spec(record.method_name, record.task.name, record.smoke, inner)
        changed = differences(spec, own)
    except UserError:
        changed = {}
    if record.compute_match is not None:  # its length is no setting but follows from the matched method's cost
        changed = {key: value for key, value in changed.items() if not key.startswith(f"{METHOD}.")}
    if record.search is not None:  # what a search found is what its ruleset stands for
        changed = {key: value for key, value in changed.items() if key not in record.search.values}
    named = told(record.provenance.command) if record.custom else {}
    chosen = {key: value for key, value in changed.items() if any(f"{key}.".startswith(f"{name}.") for name in named)}
    return chosen or changed or named


def wanted(method: str, task: str, words: Sequence[str]) -> dict[str, Any]:
    """In which settings a configuration that a user asks for differs from the method's and the task's own.

    Raises:
        UserError: as :func:`kdbench.specs.config.run_config`.
    """
    from kdbench.specs.config import run_config

    spec = run_config(method, task, words).spec()
    return differences(spec, default_spec(method, task, False, _inner(spec)))


def default_spec(method: str, task: str, smoke: bool, inner: str | None) -> dict[str, Any]:
    """What a configuration without overrides resolves to; ``inner`` names the method within a method."""
    from kdbench.specs.config import run_config

    words = [f"{METHOD}.{INNER}={inner}"] if inner is not None else []
    config = run_config(method, task, words, smoke=smoke)
    plain = run_config(method, task, smoke=smoke).method.inner if words else config.method.inner
    spec = config.spec()
    if inner is not None and (plain is None or plain.ref.name != inner):
        spec["params"][INNER]["name"] = plain.ref.name if plain is not None else None
    return spec


def differences(spec: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Key to value of the settings of a resolved configuration that are not those of another."""
    ours, theirs = _settings(spec), _settings(own)
    return {key: value for key, value in ours.items() if _plain(theirs.get(key, ABSENT)) != _plain(value)}


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    protocol = spec.get("protocol")
    params = dict(spec.get("params") or {})
    inner = params.get(INNER)
    if isinstance(inner, Mapping):
        params[INNER] = {"": inner.get("name"), **{key: value for key, value in inner.items() if key != "name"}}
    whole = protocol if isinstance(protocol, Mapping) and isinstance(protocol.get("train"), Mapping) else {}
    return {**(_leaves(METHOD, params) if params else {}), **(_leaves("", whole) if whole else {})}


def _leaves(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(".".join(part for part in (prefix, key) if part), item)
    return found


def _inner(spec: Mapping[str, Any]) -> str | None:
    inner = (spec.get("params") or {}).get(INNER)
    return inner.get("name") if isinstance(inner, Mapping) else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
