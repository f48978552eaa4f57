"""Plugins: packages that installed distributions name as entry points, and folders and files that are made modules.

None of them is imported to be found.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path

from kdbench.base.errors import UserError

METHODS = "kdbench.methods"
"""Entry points that name a package with a method's ``card.yaml`` and ``adapter.py``."""
TASKS = "kdbench.tasks"
"""Entry points that name a package with task files."""
VECTORS = "parity"
"""Folder of golden vectors in a method's package; what lies there decides no result."""
SETS = "kdbench.sets"
"""Entry points that name a package with data set files."""
SOURCES = "kdbench.sources"
"""Entry points that name a module which is a data source."""
KINDS = "kdbench.kinds"
"""Entry points that name a module with a kind of task."""
DEVICES = "kdbench.devices"
"""Entry points that name a module with a backend of a kind of device."""
NETS = "kdbench.nets"
"""Entry points that name a module which declares the net of the entry point's name."""


Searched = tuple[tuple[str, int], ...]
"""Places that packages are imported from, each with the time of its last change in ns, 0 where it is not there."""


def searched() -> Searched:
    """Of this process now: while it is the same, so is what is installed, as for the import system."""

    def changed(place: str) -> int:
        try:
            return os.stat(place or ".").st_mtime_ns
        except OSError:
            return 0

    return tuple((place, changed(place)) for place in sys.path)


def entries(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Entry points of a group, of all installed distributions."""
    return _entries(group, searched())


@functools.cache
def _entries(group: str, _: Searched) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


def packages(group: str) -> dict[str, str]:
    """Entry point name to package, of a group."""
    return {entry.name: entry.value.partition(":")[0] for entry in entries(group)}


def distributions() -> set[str]:
    """Names of the installed distributions that bring a plugin, normalised."""
    groups = (METHODS, TASKS, SETS, SOURCES, KINDS, DEVICES, NETS)
    found = [entry.dist for group in groups for entry in entries(group)]
    return {re.sub(r"[-_.]+", "-", dist.name).lower() for dist in found if dist is not None}


@functools.cache
def folders(group: str) -> tuple[Path, ...]:
    """Folders of a group's packages."""
    return tuple(package_folder(package) for package in packages(group).values())


def package_folder(package: str) -> Path:
    """Folder of a package. Only its parents are imported, never the package itself.

    Raises:
        UserError: it is not installed, or a single file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"package {package!r} is not installed or is a single file; a plugin is a package with YAML files in it"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def module_folder(module: str) -> Path:
    """Folder of a package, or of the file of a module. Only its parents are imported.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise UserError(f"module {module!r} is not installed; install its package again")
    return Path(next(iter(spec.submodule_search_locations or [str(Path(str(spec.origin)).parent)])))


class _Folders(MetaPathFinder):
    """Finds the packages that :func:`add_package` has named."""

    def __init__(self) -> None:
        self.of: dict[str, Path] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        """The module of a file, or the package of a folder, with or without ``__init__.py`` as on Python's path."""
        folder = self.of.get(name)
        if folder is None:
            return None
        if folder.is_file():
            return importlib.util.spec_from_file_location(name, folder)
        file = folder / "__init__.py"
        if file.is_file():
            return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(folder)])
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec


_folders = _Folders()


def add_package(name: str, folder: Path) -> None:
    """Makes a folder a package of this process, or a Python file a module, wherever it lies."""
    _folders.of[name] = folder
    if _folders not in sys.meta_path:
        sys.meta_path.append(_folders)
