"""Help with overrides: groups that a task leaves unset, and how to type values, also those that were typed wrongly."""

from __future__ import annotations

import contextlib
import copy
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

SPECIAL = "#~=,()[]{}:;&'\"\\"
"""Characters that mean something in an override's value, or that it may not hold without quotes."""


def open_groups(body: dict[str, Any], model: type[BaseModel], keys: Iterable[str]) -> None:
    """Fills the unset groups that keys lie below, in place, so that the keys can be set one by one.

    An unset group takes the values that it stands for: those of the block which the model it belongs to changes
    (``STANDS_FOR``), else the model's defaults. A mapping of free keys gets the key.

    Args:
        body: a dump of ``model`` with every key; more keys at its root are left alone.
        keys: dotted.
    """
    for key in keys:
        owner: Any = model
        node: Any = body
        *parents, last = key.split(".")
        for part in parents:
            inner = _inner(owner, part)
            if inner is None or not isinstance(node, dict) or part not in node:
                break
            if node[part] is None and isinstance(inner, type) and issubclass(inner, BaseModel):
                node[part] = _filled(owner, part, inner, body)
            elif node[part] is None and _is_free(inner):
                node[part] = {}
            owner, node = inner, node[part]
        else:
            if isinstance(node, dict) and _is_free(owner):
                node.setdefault(last, None)


def group_keys(model: type[BaseModel], key: str) -> list[str]:
    """Dotted keys of the group of this name; none where it is no group of the model."""
    found: Any = model
    for part in key.split("."):
        found = _inner(found, part)
    return [f"{key}.{name}" for name in getattr(found, "model_fields", {})]


def is_one_value(model: type[BaseModel], key: str) -> bool:
    """Whether a key of the model holds one value, though it may be written as a mapping, and no keys of its own."""
    found: Any = model
    for part in key.split("."):
        found = _inner(found, part)
    is_group = isinstance(found, type) and issubclass(found, BaseModel)
    return found is not None and not is_group and typing.get_origin(found) is not dict


def unhashed(model: type[BaseModel], key: str) -> str:
    """The part of a key that decides nothing of a run and is in no hash (``BESIDE``), "" where all of it does."""
    found: Any = model
    parts = key.split(".")
    for place, part in enumerate(parts):
        if part in getattr(found, "BESIDE", ()):
            return ".".join(parts[: place + 1])
        found = _inner(found, part)
    return ""


def may_be_unset(model: type[BaseModel], key: str) -> bool:
    """Whether a group can be switched off with ``key=null``."""
    owner: Any = model
    *parents, last = key.split(".")
    for part in parents:
        owner = _inner(owner, part)
    field = getattr(owner, "model_fields", {}).get(last)
    return field is not None and type(None) in typing.get_args(field.annotation)


def one_by_one(key: str, value: Any) -> Iterator[str]:
    """The overrides that set a group's keys one by one."""
    if not isinstance(value, dict):
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield f"{key}={text}"
        return
    for name, item in value.items():
        yield from one_by_one(f"{key}.{name}", item)


def as_words(changed: Mapping[str, Any]) -> list[str]:
    """``key=value`` of each, as the command line takes it."""
    return [f"{key}={_shown(value)}" for key, value in changed.items()]


def _shown(value: Any) -> str:
    """A value as the command line takes it; a whole number without its point."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)


def how_to_type(text: str, taken: Callable[[str], bool]) -> str:
    """What to type in a shell for an override that cannot be read as it stands.

    Args:
        text: ``key=value``.
        taken: whether an override can be read.
    """
    key, equals, value = text.partition("=")
    if not equals or not taken(f"{key}=1"):
        return "not of the form key=value"
    bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    found = [letter for letter in dict.fromkeys(bare) if not letter.isascii() or letter in SPECIAL]
    if bare.startswith("~"):
        with contextlib.suppress(RuntimeError):  # an unknown user's
            bare = str(Path(bare).expanduser())  # no shell sees a '~' within quotes
    quoted = bare.replace("\\", "\\\\").replace("'", "\\'")
    form = f"{key}='{quoted}'"
    if not taken(form):
        return "not of the form key=value"
    shown = f'"{form}"' if not set(form) & set('"$`!\\') else shlex.quote(form)
    what = " ".join(found) or "what it holds"
    return f"a value that holds {what} needs quotes, and these need quotes of the shell; type {shown}"


def _inner(annotation: Any, part: str) -> Any:
    """The type of a key of a model or of an item of a mapping, without ``| None``; None where nothing is known."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(part)
        found = None if field is None else field.annotation
    else:
        found = (typing.get_args(annotation) or (None, None))[-1] if typing.get_origin(annotation) is dict else None
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        found = next((one for one in typing.get_args(found) if one is not type(None)), None)
    return found


def _is_free(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) is dict and typing.get_args(annotation)[-1] is Any


def _filled(owner: Any, part: str, inner: type[BaseModel], body: dict[str, Any]) -> dict[str, Any]:
    stands_for = getattr(owner, "STANDS_FOR", None)
    if stands_for is not None:
        return copy.deepcopy(typing.cast(dict[str, Any], body[stands_for][part]))
    found = {}
    for name, field in inner.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found[name] = None if default is PydanticUndefined else default
    return found
