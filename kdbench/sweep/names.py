"""Lists of names as people type them: names, ``all``, patterns such as ``crd*``, and paths of local ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase

from kdbench.base.errors import UserError, nearest
from kdbench.specs import local, registry

ALL = "all"
_PATTERN = frozenset("*?[")


def method_names(text: str) -> list[str]:
    """Methods in the order given; ``all`` and patterns stand for methods and variants in alphabetical order.

    A pattern that spells out the start of compute-matched variants (``plain@*``, ``plain@crd*``) stands for these.

    Raises:
        UserError: an unknown name, a pattern nothing fits, an empty list.
    """
    text = _local(text, local.method)
    known = registry.methods()
    matched = [
        f"{prefix}{name}"
        for prefix, ref in registry.patterns().items()
        for name, of in known.items()
        if of.card is not ref.card  # a method is not matched with itself
    ]

    def fits(pattern: str) -> Iterable[str]:
        prefixes = tuple(prefix for prefix in registry.patterns() if pattern.startswith(prefix))
        return matched if prefixes else known

    return _expand(text, "--methods", known, fits, lambda name: registry.method(name).name)


def task_names(text: str) -> list[str]:
    """Tasks in the order given; ``all`` and patterns stand for tasks in alphabetical order.

    Raises:
        UserError: an unknown name, a pattern nothing fits, an empty list.
    """
    text = _local(text, local.task)
    known = registry.task_files()
    return _expand(text, "--tasks", known, lambda pattern: known, lambda name: registry.task(name).name)


def _local(text: str, name: Callable[[str], str]) -> str:
    """The list with names for paths, all of which are known before the first name is looked up."""
    return ",".join(name(part) if local.is_path(part) else part for part in map(str.strip, text.split(",")))


def _expand(
    text: str,
    option: str,
    known: Collection[str],
    fits: Callable[[str], Iterable[str]],
    resolve: Callable[[str], str],
) -> list[str]:
    found: list[str] = []
    for item in (part.strip() for part in text.split(",")):
        if item == ALL:
            found += known
        elif _PATTERN & set(item):
            names = [name for name in fits(item) if fnmatchcase(name, item)]
            if not names:
                raise UserError(f"{option}: nothing is named like {item!r}{nearest(item.strip('*?'), known)}")
            found += names
        elif item:
            found.append(resolve(item))
        else:
            raise UserError(f"{option} {text!r}: an empty name; write names, patterns or 'all', separated by commas")
    return list(dict.fromkeys(found))
