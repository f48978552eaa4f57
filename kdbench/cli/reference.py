"""``docs/cli.md``: every command with its arguments and options, from the command line itself (``make docs``)."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import typer

from kdbench.cli import app

HEAD = """# Every command

Written by `make docs` from the command line itself; a test keeps it current. Exit codes: 0 done, 1 a run or check
failed, 2 bad input (one line says what), 3 the method does not apply to the task, 130 interrupted.

| variable | meaning |
|---|---|
| `KDBENCH_HOME` | home folder for records, index, teachers, caches and the board, where `--out` is not given |
| `KDBENCH_DATA` | folder with data sets, where `--data` is not given |
| `KDBENCH_CHECKPOINT_SECONDS` | seconds between two checkpoints of a run, 60 unless set: what a killed run repeats |
"""


def commands(group: Any, path: tuple[str, ...] = ("kdbench",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group with the words that call it, in the order of the help."""
    for name in group.list_commands(None):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for path, command in commands(typer.main.get_command(app)):
        given = [parameter for parameter in command.params if parameter.name != "help"]
        arguments = [parameter for parameter in given if parameter.param_type_name == "argument"]
        words = [_placeholder(argument) for argument in arguments]
        about = " ".join((command.help or "").split())
        parts.append(f"## {' '.join(path)}\n\n{about}\n\n```text\n{' '.join([*path, *words, '[OPTIONS]'])}\n```\n")
        choices = _choices(command.callback)
        rows = [
            f"| {_names(parameter, choices.get(parameter.name, ()))} | {_meaning(parameter)} |" for parameter in given
        ]
        if rows:
            parts.append("\n".join(["| argument or option | meaning |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _placeholder(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _choices(function: Any) -> dict[str, tuple[str, ...]]:
    """Parameter name to the words it takes, of those that take some words only."""
    hints = typing.get_type_hints(inspect.unwrap(function))
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def _names(parameter: Any, choices: tuple[str, ...]) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len))
    return f"{names} `{'|'.join(choices)}`".replace("|", "\\|") if choices else names


def _meaning(parameter: Any) -> str:
    about = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|") or parameter.name
    notes = ["required"] if parameter.required and parameter.param_type_name != "argument" else []
    default = parameter.default
    if isinstance(default, str | int | float) and not isinstance(default, bool):
        notes.append(f"default `{default}`")
    if getattr(parameter, "multiple", False):
        notes.append("may be repeated")
    return about + (f" ({', '.join(notes)})" if notes else "")


if __name__ == "__main__":
    print(text(), end="")
