"""What lies in a folder of one's own: a method, ``./mine/`` with card and adapter; a task, ``./mytask.yaml``; nets,
``./mynets.py`` with factories under ``@kdbench.net``. Python objects become such folders in the home (``OBJECT``).

Only the person at the keyboard names a path: on the command line, and through it in the orders to processes started
from there. Cards, tasks and records name registered methods and tasks alone, so that none of them can run a file.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from kdbench.base import plugins
from kdbench.base.errors import UserError, described
from kdbench.base.fields import Part
from kdbench.base.files import canonical_json, sha256, sha256_file
from kdbench.specs import nets, registry
from kdbench.specs.config import RunConfig
from kdbench.specs.registry import CARD, SLUG

ADAPTER = "adapter.py"
TASK = ".yaml"
SETS = "sets"
"""Folder beside a task's file with its data sets."""
NETS = ".py"
OBJECT = ".object"
"""A file beside what was made of a Python object; its first line is the object's digest."""
OBJECT_SAID = "object:"
SAID = ("./", OBJECT_SAID)
"""What the name of something local begins with in records."""
Kind = Literal["method", "task", "nets"]
PACKAGE = "kdbench_local_"
"""What the name of a local folder's package begins with."""


class Local(Part):
    """A folder or a file that was named by its path.

    Attributes:
        name: the method's, the task's or that of the file of nets, by folder or file.
        digest: of the content when it was named; ``README.md`` and hidden files are no part of it.
    """

    kind: Kind
    name: str
    path: Path
    digest: str

    @property
    def is_object(self) -> bool:
        """Whether it was made of a Python object."""
        return (self.path.parent / OBJECT).is_file()

    @property
    def said(self) -> str:
        """What records call it: ``./mine/``, without where it lies; ``object:mine`` of a Python object."""
        if self.is_object:
            return f"{OBJECT_SAID}{self.name}"
        return f"./{self.name}/" if self.path.is_dir() else f"./{self.path.name}"

    def files(self) -> list[Path]:
        """The files it is of."""
        return _files(self.path) if self.path.is_dir() else [self.path]

    def known_here(self) -> None:
        """Makes it known in this process, too, as what it was where it was named.

        Raises:
            UserError: its content is another now.
        """
        _take(self.kind, self.path, str(self.path))
        taken = _given.get((self.kind, self.name), self)
        if {taken.digest, _digest(self.path)} != {self.digest}:
            raise UserError(f"{self.said} has changed since this was begun; give the same command again")


_given: dict[tuple[str, str], Local] = {}


def is_path(text: str) -> bool:
    """Whether a word is a path: one that starts with ``.``, ``/`` or ``~`` or ends with ``/`` or ``.yaml``."""
    return text.startswith((".", "/", "~")) or text.endswith(("/", TASK))


def add(text: str) -> str:
    """Makes known what lies at a path, whatever it is; its name.

    Raises:
        UserError: it is none of these, or its name is taken.
    """
    path = _absolute(text)
    if path.suffix == TASK:
        return _take("task", path, text)
    if path.suffix == NETS or (path.is_dir() and not (path / CARD).is_file() and (path / "__init__.py").is_file()):
        return _take("nets", path, text)
    if path.is_dir():
        return method(text if is_path(text) else f"./{text}")
    raise UserError(
        f"{text}: no folder with {CARD} and {ADAPTER}, no task file ({TASK}) and no Python file with nets ({NETS})"
    )


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


def first_word(text: str) -> str:
    """``METHOD KEY=VALUE ...`` with a name for a path.

    Raises:
        UserError: as :func:`method`.
    """
    word, space, rest = text.partition(" ")
    return f"{method(word)}{space}{rest}"


def task(text: str) -> str:
    """The name of a task that is given by name, or by its file's path.

    Raises:
        UserError: there is no such file, or its name is taken.
    """
    return _take("task", _absolute(text), text) if is_path(text) else text


def set_folders() -> list[Path]:
    """Where tasks of one's own keep what their data are: ``sets/`` beside the file."""
    return [one.path.parent / SETS for (kind, _), one in _given.items() if kind == "task"]


def known() -> tuple[Local, ...]:
    """All that was named in this process."""
    return tuple(_given.values())


def used(config: RunConfig) -> tuple[Local, ...]:
    """Those behind a configuration: its method, the one inside it, the one it is matched with, its task, its nets."""
    names: list[tuple[str, str]] = [("method", config.method.ref.card.name), ("task", config.task.name)]
    if config.method.inner is not None:
        names.append(("method", config.method.inner.ref.card.name))
    if config.method.ref.match is not None:
        names.append(("method", registry.method(config.method.ref.match).card.name))
    names += [("nets", file) for net in config.nets() if (file := _file_of_net(net)) is not None]
    return tuple(_given[name] for name in dict.fromkeys(names) if name in _given)


def typed(config: RunConfig) -> tuple[str, str]:
    """Method and task as they are given on the command line, paths without where they lie."""
    ref, of_task = config.method.ref, _given.get(("task", config.task.name))
    of_method = _given.get(("method", ref.card.name)) if ref.match is None else None
    variant = ref.name if ref.variant is not None else ""
    return f"{of_method.said}{variant}" if of_method else ref.name, of_task.said if of_task else config.task.name


def _file_of_net(net: str) -> str | None:
    """The local file that declares a net."""
    declared = nets.declared().get(net)
    return None if declared is None else _modules.get(declared.module.partition(".")[0])


def words(config: RunConfig) -> list[str]:
    """What is named on the command line beside method and task, paths without where they lie."""
    first = {config.method.ref.card.name, config.task.name}
    return [word for one in used(config) if one.name not in first for word in ("--local", one.said)]


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{text!r} is no path: {error}") from error


def _take(kind: Kind, path: Path, text: str) -> str:
    """Makes a folder or file known to the registry of this process; its name."""
    _require(kind, path, text)
    name = path.name if path.is_dir() else path.stem
    if (there := _given.get((kind, name))) is not None and there.path == path:
        return name
    if (registered := _registered(kind, path)) is not None:
        return registered
    if not SLUG.fullmatch(name) or "__" in name:
        raise UserError(
            f"{text}: a {kind}'s name is of [a-z0-9_.-] without '__', not {name!r}; rename the {_what(path)}"
        )
    made = Local(kind=kind, name=name, path=path, digest=_digest(path))
    again = there is not None and there.is_object and made.is_object  # a cell of a notebook that was run anew
    if name in _names(kind) and not again:
        raise UserError(f"{text}: there is a {kind} {name!r} already; rename the {_what(path)}")
    _ADD[kind](made, text)
    _given[kind, name] = made
    return name


def _add_method(made: Local, text: str) -> None:
    package = _package(made)
    plugins.add_package(package, made.path)
    registry.add_method(made.name, package)


def _add_task(made: Local, text: str) -> None:
    registry.add_task(made.name, made.path)


def _add_nets(made: Local, text: str) -> None:
    """Imports a file that declares nets."""
    module, before = _package(made), nets.declared()
    nets.shown[module] = text
    plugins.add_package(module, made.path)
    sys.modules.pop(module, None)  # an object that was given before declares its net again
    try:
        importlib.import_module(module)
        own = [one for one in nets.declared().values() if f"{one.module}.".startswith(f"{module}.")]
        if nets.declared() == before and not own:
            raise UserError(f"{text}: no net is declared in it; write @kdbench.net(NAME) above a factory")
    except Exception as error:  # whatever its code does
        for name in nets.declared().keys() - before.keys():
            nets.forget(name)
        sys.modules.pop(module, None)  # so that the file is read again once it is mended
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{text}: cannot be imported: {type(error).__name__}: {described(error, ours=False)}"
        ) from error
    _modules[module] = made.name


_ADD = {"method": _add_method, "task": _add_task, "nets": _add_nets}
_modules: dict[str, str] = {}
"""Module of a file of nets to the file's name."""


def _names(kind: Kind) -> Collection[str]:
    if kind == "nets":
        return [name for of, name in _given if of == kind]
    return registry.methods() if kind == "method" else registry.task_files()


def _package(made: Local) -> str:
    """A name for Python: of an object another one for each of its states."""
    word = "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in made.name)
    return PACKAGE + word + (f"_{made.digest[:8]}" if made.is_object else "")


def _what(path: Path) -> str:
    return "folder" if path.is_dir() else "file"


def _require(kind: str, path: Path, text: str) -> None:
    if kind == "task":
        if path.suffix != TASK or not path.is_file():
            raise UserError(f"{text}: no task file; a path of a task ends in {TASK} and is a file")
        return
    if kind == "nets":
        if not path.exists():
            raise UserError(f"{text}: no such file; nets are declared in a Python file, under @kdbench.net(NAME)")
        return
    if not path.is_dir():
        raise UserError(f"{text}: no folder; a path of a method is a folder with {CARD} and {ADAPTER}")
    for name in (CARD, ADAPTER):
        if not (path / name).is_file():
            raise UserError(f"{text}: no {name} in it; a method's folder holds {CARD} and {ADAPTER}")


def _registered(kind: Kind, path: Path) -> str | None:
    """The name under which a folder or file is registered anyway."""
    if kind == "nets":
        return None
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


def _parts(path: Path) -> Iterator[tuple[str, str]]:
    beside = sorted((path.parent / SETS).glob(f"*{TASK}")) if path.suffix == TASK else []
    for file in _files(path) if path.is_dir() else [path, *beside]:
        yield file.relative_to(path.parent).as_posix(), sha256_file(file)


def _digest(path: Path) -> str:
    try:
        return sha256(canonical_json(dict(_parts(path))))
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
