"""What a call from Python was given, held to the types that it states before anything runs: one line says what is not.

A shell gives words, which the command line reads; a script gives anything. What NumPy and torch make of a number or a
list is that number or list.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from kdbench.base.errors import UserError, nearest

SEED_LIMIT = 2**31 - 1
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Words:
    """What a type asks for, as a message says it."""

    text: str


def _plain(value: Any) -> Any:
    """A tensor, an array or a number of theirs as Python's own; a range as a list."""
    if isinstance(value, range):
        return list(value)
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def _items(value: Any) -> Any:
    """The same of the values of a mapping, none of which is a mapping."""
    if not isinstance(value, Mapping):
        return value
    if not all(isinstance(key, str) and not isinstance(held, Mapping) for key, held in value.items()):
        raise ValueError("keys that are no text, or a mapping within")
    return {key: _plain(held) for key, held in value.items()}


def _no_text(value: Any) -> Any:
    """A text is a list of letters to Python, and none of names to anyone else."""
    if isinstance(value, str):
        raise ValueError("a text")
    return value


def _differ(seeds: Sequence[int]) -> Sequence[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed stands twice")
    return seeds


_WHOLE = ConfigDict(strict=True, arbitrary_types_allowed=True)
Seed = Annotated[
    int, Field(ge=0, le=SEED_LIMIT), BeforeValidator(_plain), Words(f"a whole number from 0 to {SEED_LIMIT}")
]
Seeds = Annotated[
    Sequence[Seed],
    Field(min_length=1),
    BeforeValidator(_plain),
    AfterValidator(_differ),
    Words("a list of seeds such as [0, 1, 2], each once"),
]
Settings = Annotated[
    Mapping[str, Any],
    BeforeValidator(_items),
    Words('settings by their whole keys, such as {"train.epochs": 5, "method.temperature": 2.0}'),
]
"""Settings by the keys of the command line: ``{"train.epochs": 5, "method.temperature": 2.0}``."""
Keys = Annotated[Mapping[str, Any], Words("a mapping of settings")]
"""Settings of one thing, by name; what they may be is its own to say."""
Number = Annotated[int, Field(ge=1), BeforeValidator(_plain), Words("a whole number from 1 on")]
Numbers = Annotated[
    Mapping[str, Sequence[Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_plain)]]],
    BeforeValidator(_items),
    Words('a list of numbers by input, such as {"image": [0.5, 0.5, 0.5]},'),
]
Place = Annotated[str | Path, Words("the path of a folder")]
Device = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value).__name__ == "device" else value),
    Words("a device such as 'auto', 'cpu' or 'cuda:0'"),
]
Listed = BeforeValidator(_no_text)
Names = Annotated[Sequence[str], Words("a list of names")]


def checked(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function whose arguments are held to its annotations; what is annotated as ``Any`` is not looked at.

    Raises:
        UserError: of the call, naming the argument, what it is and what is asked for.
    """
    signature = inspect.signature(call)

    @functools.wraps(call)
    def held(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        bound = signature.bind(*args, **kwargs)
        hints = _hints(call)
        for name, value in bound.arguments.items():
            bound.arguments[name] = taken(name, value, hints[name]) if name in hints else value
        return call(*bound.args, **bound.kwargs)

    return held


def taken(name: str, value: Any, hint: Any) -> Any:
    """A value as a type has it.

    Args:
        name: of the argument, for the message.

    Raises:
        UserError: it is of another type, or none of those that the type names.
    """
    try:
        return TypeAdapter(hint, config=_WHOLE).validate_python(value)
    except ValidationError as error:
        choices = [one for one in _choices(hint) if isinstance(one, str)]
        near = nearest(value, choices, 1) if isinstance(value, str) else ""
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) < 100 else f"{shown[:80]} ..."
        raise UserError(f"{name}={shown}: {_words(hint)} is asked for{near}") from error


def _words(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return next((one.text for one in parts[1:] if isinstance(one, Words)), None) or _words(parts[0])
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(part) for part in parts)
    plain = {bool: "True or False", str: "a text", int: "a whole number", type(None): "None", Path: "a path"}
    return plain.get(hint, "a function" if origin is not None else getattr(hint, "__name__", str(hint)))


def _choices(hint: Any) -> list[Any]:
    parts = typing.get_args(hint)
    return list(parts) if typing.get_origin(hint) is Literal else [one for part in parts for one in _choices(part)]


@functools.cache
def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    """Its annotations, but what it returns."""
    found = typing.get_type_hints(call, include_extras=True)
    return {name: hint for name, hint in found.items() if name != "return"}
