"""Finds method cards and task files, built-in ones, those of plugins and those added, without importing any adapter."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.base import plugins
from kdbench.base.errors import UserError, described, nearest
from kdbench.base.yamlfile import read_as
from kdbench.specs.card import Card, Variant
from kdbench.specs.task import TaskSpec

if TYPE_CHECKING:
    from kdbench.contract import Method

PLAIN = "plain"
"""The reference of every ratio, and how teachers are trained."""
SLUG = re.compile(r"[a-z0-9][a-z0-9_.-]*")
CARD = "card.yaml"
_added_methods: dict[str, str] = {}
_added_tasks: dict[str, Path] = {}
"""Of this process alone: method to package, task to file."""


@dataclass(frozen=True)
class MethodRef:
    """A method by its full name: a card, or one of its variants.

    ``match`` is the method whose cost the variant takes over, for names such as ``plain@kd``.
    """

    name: str
    card: Card
    package: str
    variant: Variant | None = None
    match: str | None = None

    @property
    def kinds(self) -> list[str] | None:
        """Kinds of task it runs on, None for any."""
        own = self.variant.kinds if self.variant is not None else None
        return self.card.kinds if own is None else own

    @property
    def kinds_said(self) -> str:
        """The same in words."""
        return "any kind" if self.kinds is None else ", ".join(self.kinds)

    @property
    def needs(self) -> list[str]:
        """What it asks of a task, in words."""
        own = self.variant.needs if self.variant is not None else None
        return self.card.needs if own is None else own

    def adapter(self) -> type[Method]:
        """The adapter class. Imports torch.

        Raises:
            UserError: ``adapter.py`` cannot be imported, or does not define the class that the card names.
        """
        try:
            module = importlib.import_module(f"{self.package}.adapter")
        except Exception as error:  # whatever its code does
            what = f"{type(error).__name__}: {described(error)}"
            raise UserError(f"the adapter of {self.name} cannot be imported: {what}") from error
        adapter = getattr(module, self.card.adapter, None)
        if adapter is None:
            known = [name for name in vars(module) if name[:1].isupper()]
            raise UserError(
                f"{self.package}.adapter has no class {self.card.adapter!r}{nearest(self.card.adapter, known)}; "
                "the card's key 'adapter' names it"
            )
        return adapter


@functools.cache
def method_packages() -> dict[str, str]:
    """Method name to package, built-in ones first.

    Raises:
        UserError: a plugin takes the name of a built-in method.
    """
    root = plugins.package_folder("kdbench.methods")
    found = {p.parent.name: f"kdbench.methods.{p.parent.name}" for p in sorted(root.glob(f"*/{CARD}"))}
    for name, package in plugins.packages(plugins.METHODS).items():
        if name in found:
            raise UserError(
                f"plugin {package!r} registers the method {name!r}, which kdbench has; rename the plugin's method"
            )
        found[name] = package
    return found | _added_methods


def add_method(name: str, package: str) -> None:
    """Makes a method known to this process alone.

    Raises:
        UserError: its card cannot be read, or a variant of it has the name of another method.
    """
    _added_methods[name] = package
    _forget()
    try:
        methods()
    except UserError:
        del _added_methods[name]
        _forget()
        raise


def add_task(name: str, path: Path) -> None:
    """Makes a task known to this process alone."""
    _added_tasks[name] = path
    _forget()


def _forget() -> None:
    for cached in (method_packages, card, methods, patterns, task_files, task):
        cached.cache_clear()


@functools.cache
def card(name: str) -> Card:
    """The card of a method folder."""
    return read_as(Card, plugins.package_folder(method_packages()[name]) / CARD, name=name)


@functools.cache
def methods() -> dict[str, MethodRef]:
    """Every method name, variants included; patterns such as ``plain@*`` are in :func:`patterns`."""
    found: dict[str, MethodRef] = {}
    for name, package in method_packages().items():
        of = card(name)
        found[name] = MethodRef(name, of, package)
        for variant, settings in of.variants.items():
            if settings.matched is not None:
                continue
            if variant in found or variant in method_packages():
                raise UserError(f"variant {variant!r} of {name} has the name of another method; rename it in its card")
            found[variant] = MethodRef(variant, of, package, settings)
    return dict(sorted(found.items()))


@functools.cache
def patterns() -> dict[str, MethodRef]:
    """Variants that stand for one variant a method, by the part of the name before the ``*``."""
    found = {}
    for name, package in method_packages().items():
        for pattern, settings in card(name).variants.items():
            if settings.matched is not None:
                found[pattern.removesuffix("*")] = MethodRef(pattern, card(name), package, settings)
    return found


def method(name: str) -> MethodRef:
    """A method by name.

    Raises:
        UserError: unknown; names the nearest.
    """
    if name in (known := methods()):
        return known[name]
    for prefix, ref in patterns().items():
        if name.startswith(prefix) and (match := name.removeprefix(prefix)) in known:
            return dataclasses.replace(ref, name=name, match=match)
    raise UserError(f"unknown method {name!r}{nearest(name, known)}; `kdbench list methods` shows all")


@functools.cache
def task_files() -> dict[str, Path]:
    """Task name to file: its path under ``tasks/`` without ``.yaml``, without the :func:`misnamed`."""
    return _found()[0]


def misnamed() -> dict[str, str]:
    """Names that no task can have or that two files have, and what to do."""
    return _found()[1]


def _found() -> tuple[dict[str, Path], dict[str, str]]:
    folders = [plugins.package_folder("kdbench.tasks"), *plugins.folders(plugins.TASKS)]
    found: dict[str, Path] = {}
    wrong: dict[str, str] = {}
    for folder in folders:
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if any(part.startswith(".") for part in name.split("/")):
                continue  # of an editor or a file manager
            if "__" in name or not all(SLUG.fullmatch(part) for part in name.split("/")):
                wrong[name] = (
                    f"{path}: a task's name has one or two parts of [a-z0-9_.-], without '__'; rename the file"
                )
            elif name in found:
                wrong[name] = f"{path}: the task {name!r} is there already ({found[name]}); rename the file"
            else:
                found[name] = path
    found |= _added_tasks
    return {name: found[name] for name in sorted(found) if name not in wrong}, wrong


@functools.cache
def task(name: str) -> TaskSpec:
    """A task by name.

    Raises:
        UserError: unknown (names the nearest), in two files, or malformed (file, line, key).
    """
    if name not in (known := task_files()):
        if (wrong := misnamed().get(name)) is not None:
            raise UserError(wrong)
        raise UserError(f"unknown task {name!r}{nearest(name, known)}; `kdbench list tasks` shows all")
    return read_as(TaskSpec, known[name], name=name)


def tasks() -> dict[str, TaskSpec]:
    """Every task.

    Raises:
        UserError: one of them cannot be read.
    """
    found, wrong = readable_tasks()
    if wrong:
        raise UserError(wrong[0])
    return found


def readable_tasks() -> tuple[dict[str, TaskSpec], list[str]]:
    """Every task whose file can be read, and a line on each of the others."""
    found, wrong = {}, list(misnamed().values())
    for name in task_files():
        try:
            found[name] = task(name)
        except UserError as error:
            wrong.append(str(error))
    return found, wrong
