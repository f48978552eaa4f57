"""The one loader of cards and tasks: safe YAML, numbers as people write them, errors with file, key and line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from kdbench.base.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)

_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
MAX_BYTES = 1 << 18
"""A card or a task is a page of text; anything larger is not one."""
MAX_DEPTH = 20
"""Levels of lists and mappings; the parser's own stack ends at some thousands, and the process with it."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe loader that reads ``1e-3`` as a number, ``on`` and ``12:30`` as words, and refuses repeated keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_OWN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("float", "bool", "int")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag not in _OWN_TAGS]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: unreadable, not YAML, not a mapping, or larger than a page of text; names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES >> 10} KiB; a card or task is a page of text")
    try:
        if (bomb := _bomb(text)) is not None:
            raise UserError(f"{path}: not valid here: {bomb}")
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:  # constructors of tags raise what they like
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: not valid YAML: {reason}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path}:1: a mapping of keys to values is expected")
    return data


def _bomb(text: str) -> str | None:
    """What makes a small text a large value or a deep one, None if nothing does. Events take no stack."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            return "YAML aliases (*name) can hide a bomb; write the value out"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                where = f"line {event.start_mark.line + 1} is " if event.start_mark is not None else ""
                return f"{where}nested more than {MAX_DEPTH} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def read_as(model: type[Model], path: Path, **fixed: Any) -> Model:
    """The file as a pydantic model, with ``fixed`` keys that the file may not set."""
    data = read(path)
    for key in fixed:
        if key in data:
            raise UserError(f"{path}:{line_of(path, (key,))}: key {key!r} is set by the file's place; remove it")
    try:
        return model.model_validate({**data, **fixed})
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{path}:{line_of(path, (*first['loc'], *_keys_said(first['msg'])))}"
        raise UserError(f"{place}: {describe(error, model)}") from error


_KEYS = re.compile(r"(?:Value error, )?([a-z_]+(?:\.[\w-]+)*)")
"""What may be keys at the beginning of a message; words that are none lead to no line."""


def _keys_said(message: str) -> list[str]:
    """The keys that a message about several of them begins with: ``score.k belongs to ...``."""
    found = _KEYS.match(message)
    return found[1].split(".") if found else []


_OF_TYPE = re.compile(r"[\w-]+\[.*\]")
"""What pydantic puts among the keys where one of several types is meant."""


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error as one line: key, what is wrong, the nearest right key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if not _OF_TYPE.fullmatch(str(part)))
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"unknown key {key!r}{nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = repr(first["input"])
    shown = f" (given {given})" if len(given) < 60 and not isinstance(first["input"], dict) else ""
    return f"{key}: {message}{shown}" if key else message


def _fields_at(model: Any, loc: Sequence[int | str]) -> list[str]:
    """Field names of the model reached by walking ``loc`` from ``model``."""
    for part in loc:
        if isinstance(part, int):
            continue
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(getattr(model, "model_fields", {}))


def line_of(path: Path, loc: Sequence[int | str]) -> int:
    """Line of a key in a YAML file, or of its nearest parent that is there."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    line = 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            continue  # a pydantic union or tag in the location: the file has no such level
    return line
