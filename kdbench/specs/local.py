"""Methods and tasks that lie in a folder of one's own: ``./mine/`` with card and adapter, ``./mytask.yaml``.

Only the person at the keyboard names a path: on the command line, and through it in the orders to processes started
from there. Cards, tasks and records name registered methods and tasks alone, so that none of them can run a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kdbench.base import plugins
from kdbench.base.errors import UserError
from kdbench.base.fields import Part
from kdbench.base.files import canonical_json, sha256, sha256_file
from kdbench.specs import registry
from kdbench.specs.config import RunConfig
from kdbench.specs.registry import CARD, SLUG

ADAPTER = "adapter.py"
TASK = ".yaml"
SETS = "sets"
"""Folder beside a task's file with its data sets."""
PACKAGE = "kdbench_local_"
"""What the name of a local folder's package begins with."""


class Local(Part):
    """A folder or a file that was named by its path.

    Attributes:
        name: the method's or the task's, by folder or file.
        digest: of the content when it was named; ``README.md`` and hidden files are no part of it.
    """

    kind: Literal["method", "task"]
    name: str
    path: Path
    digest: str

    @property
    def said(self) -> str:
        """What records call it: ``./mine/``, without where it lies."""
        return f"./{self.name}/" if self.kind == "method" else f"./{self.name}{TASK}"

    def files(self) -> list[Path]:
        """The files it is of."""
        return _files(self.path) if self.kind == "method" else [self.path]

    def known_here(self) -> None:
        """Makes it known in this process, too, as what it was where it was named.

        Raises:
            UserError: its content is another now.
        """
        _take(self.kind, self.path, str(self.path))
        taken = _given.get((self.kind, self.name), self)
        if {taken.digest, _digest(self.kind, self.path)} != {self.digest}:
            raise UserError(f"{self.said} has changed since this was begun; give the same command again")


_given: dict[tuple[str, str], Local] = {}


def is_path(text: str) -> bool:
    """Whether a word is a path: one that starts with ``.``, ``/`` or ``~`` or ends with ``/`` or ``.yaml``."""
    return text.startswith((".", "/", "~")) or text.endswith(("/", TASK))


def method(text: str) -> str:
    """The name of a method that is given by name, or by its folder's path; ``./mine/NAME`` is a variant of its card.

    Raises:
        UserError: there is no such folder, or its name is taken.
    """
    if not is_path(text):
        return text
    path = _absolute(text)
    if not path.is_dir() and (path.parent / CARD).is_file():
        name, variant = _take("method", path.parent, text), path.name
        if variant not in (known := sorted(registry.card(name).variants)):
            raise UserError(f"{text}: the card has no variant {variant!r}; it has {', '.join(known) or 'none'}")
        return variant
    return _take("method", path, text)


def task(text: str) -> str:
    """The name of a task that is given by name, or by its file's path.

    Raises:
        UserError: there is no such file, or its name is taken.
    """
    return _take("task", _absolute(text), text) if is_path(text) else text


def set_folders() -> list[Path]:
    """Where tasks of one's own keep what their data are: ``sets/`` beside the file."""
    return [one.path.parent / SETS for (kind, _), one in _given.items() if kind == "task"]


def used(config: RunConfig) -> tuple[Local, ...]:
    """Those behind a configuration: its method, the one inside it, the one it is matched with, its task."""
    names = [("method", config.method.ref.card.name), ("task", config.task.name)]
    if config.method.inner is not None:
        names.append(("method", config.method.inner.ref.card.name))
    if config.method.ref.match is not None:
        names.append(("method", registry.method(config.method.ref.match).card.name))
    return tuple(_given[name] for name in dict.fromkeys(names) if name in _given)


def typed(config: RunConfig) -> tuple[str, str]:
    """Method and task as they are given on the command line, paths without where they lie."""
    ref, of_task = config.method.ref, _given.get(("task", config.task.name))
    of_method = _given.get(("method", ref.card.name)) if ref.match is None else None
    variant = ref.name if ref.variant is not None else ""
    return f"{of_method.said}{variant}" if of_method else ref.name, of_task.said if of_task else config.task.name


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{text!r} is no path: {error}") from error


def _take(kind: Literal["method", "task"], path: Path, text: str) -> str:
    """Makes a folder or file known to the registry of this process; its name."""
    _require(kind, path, text)
    name = path.name if kind == "method" else path.stem
    if (there := _given.get((kind, name))) is not None and there.path == path:
        return name
    if (registered := _registered(kind, path)) is not None:
        return registered
    if not SLUG.fullmatch(name) or "__" in name:
        raise UserError(
            f"{text}: a {kind}'s name is of [a-z0-9_.-] without '__', not {name!r}; rename the {_what(kind)}"
        )
    if name in (registry.methods() if kind == "method" else registry.task_files()):
        raise UserError(f"{text}: there is a {kind} {name!r} already; rename the {_what(kind)}")
    made = Local(kind=kind, name=name, path=path, digest=_digest(kind, path))
    if kind == "method":
        package = PACKAGE + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in name)
        plugins.add_package(package, path)
        registry.add_method(name, package)
    else:
        registry.add_task(name, path)
    _given[kind, name] = made
    return name


def _what(kind: str) -> str:
    return "folder" if kind == "method" else "file"


def _require(kind: str, path: Path, text: str) -> None:
    if kind == "task":
        if path.suffix != TASK or not path.is_file():
            raise UserError(f"{text}: no task file; a path of a task ends in {TASK} and is a file")
        return
    if not path.is_dir():
        raise UserError(f"{text}: no folder; a path of a method is a folder with {CARD} and {ADAPTER}")
    for name in (CARD, ADAPTER):
        if not (path / name).is_file():
            raise UserError(f"{text}: no {name} in it; a method's folder holds {CARD} and {ADAPTER}")


def _registered(kind: str, path: Path) -> str | None:
    """The name under which a folder or file is registered anyway."""
    if kind == "task":
        return next((name for name, file in registry.task_files().items() if file.resolve() == path), None)
    folders = ((name, plugins.package_folder(package)) for name, package in registry.method_packages().items())
    return next((name for name, folder in folders if folder.resolve() == path), None)


def _files(folder: Path) -> list[Path]:
    def counts(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        hidden = any(part[0] == "." or part == "__pycache__" for part in parts)
        return path.is_file() and not hidden and path.name != "README.md"

    return sorted(path for path in folder.rglob("*") if counts(path))


def _parts(kind: str, path: Path) -> Iterator[tuple[str, str]]:
    beside = sorted((path.parent / SETS).glob(f"*{TASK}")) if kind == "task" else []
    for file in _files(path) if kind == "method" else [path, *beside]:
        yield file.relative_to(path.parent).as_posix(), sha256_file(file)


def _digest(kind: str, path: Path) -> str:
    try:
        return sha256(canonical_json(dict(_parts(kind, path))))
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
