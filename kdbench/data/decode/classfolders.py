"""A folder a class: which folders are classes, which files are rows, and what is passed over.

Class folders are read to any depth, as torchvision's ImageFolder does. Needs neither numpy nor torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.base.errors import UserError

NO_CLASSES = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that file managers, archives and file servers leave behind."""
NO_ROWS = {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"}
"""Files that file managers leave behind."""
NAMED = 3
"""Kinds of files, or names, that are spelled out in a message."""


@dataclass
class Passed:
    """Files that are no rows: how many of each suffix, and the first of each.

    Attributes:
        folder: below which they lie.
    """

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Counts a file."""
        suffix = os.path.splitext(path)[1].lower() or "no suffix"
        self.counts[suffix] += 1
        self.first.setdefault(suffix, path)

    def __str__(self) -> str:
        """One line, empty when every file is a row."""
        if not self.counts:
            return ""
        kinds = [
            f"{count} {suffix} ({os.path.relpath(self.first[suffix], self.folder)}{', ...' if count > 1 else ''})"
            for suffix, count in self.counts.most_common(NAMED)
        ]
        more = f" and {len(self.counts) - NAMED} kinds more" if len(self.counts) > NAMED else ""
        total = self.counts.total()
        return f"{self.folder}: {total} file{'s' if total > 1 else ''} passed over: {', '.join(kinds)}{more}"


@dataclass(frozen=True)
class ClassFolders:
    """Class folders of a part.

    Attributes:
        folder: what holds them.
        files: class name to its files, both in order.
    """

    folder: Path
    files: Mapping[str, Sequence[str]]
    passed: Passed

    @property
    def empty(self) -> str:
        """One line on the class folders without a row; empty when every one has some."""
        names = [name for name, rows in self.files.items() if not rows]
        if not names:
            return ""
        many = len(names) > 1
        said = f"; {self.passed}" if self.passed.counts else ""
        return (
            f"{self.folder}: no file that is read in the class folder{'s' if many else ''} {some(names)}{said}; "
            f"fill or remove {'them' if many else 'it'}"
        )


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder that people made, in order."""
    return [e.name for e in _entries(folder) if not e.name.startswith(".") and e.name not in NO_CLASSES and e.is_dir()]


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, in order of the names.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror or error})") from error


def inner(folder: Path, suffixes: Collection[str]) -> Path:
    """The folder itself, or the one it wraps: archives often hold ``train/train/cat`` for ``train/cat``."""
    found = folder
    while len(names := subfolders(found)) == 1 and not _has_rows(found, suffixes):
        found = found / names[0]
    return found if len(names) > 1 else folder


def _has_rows(folder: Path, suffixes: Collection[str]) -> bool:
    return any(_is_row(entry.name, suffixes) for entry in _entries(folder))


def _is_row(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes


def class_folders(folder: Path, suffixes: Collection[str], beside: Collection[str] = ()) -> ClassFolders:
    """The classes below a folder.

    Args:
        suffixes: of files that are rows, in small letters.
        beside: of files that belong to a row beside them.

    Raises:
        UserError: a link leads nowhere.
    """
    folder = inner(folder, suffixes)
    passed = Passed(folder)
    for entry in _entries(folder):
        if not entry.is_dir() and not _is_litter(entry.name):
            passed.add(entry.path)
    files = {name: list(_rows(os.path.join(folder, name), suffixes, passed, ())) for name in subfolders(folder)}
    for suffix in beside:
        passed.counts.pop(suffix, None)
    return ClassFolders(folder, files, passed)


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in NO_ROWS


def _rows(folder: str, suffixes: Collection[str], passed: Passed, above: tuple[str, ...]) -> Iterator[str]:
    """Files of rows below a folder, each folder in order of its names."""
    here = os.path.realpath(folder)
    if here in above:
        raise UserError(f"{folder}: a link to a folder that holds it; remove it")
    for entry in _entries(folder):
        if _is_litter(entry.name) or entry.name in NO_CLASSES:
            continue
        if entry.is_dir():
            yield from _rows(entry.path, suffixes, passed, (*above, here))
        elif not _is_row(entry.name, suffixes):
            passed.add(entry.path)
        elif entry.is_file():
            yield entry.path
        else:
            raise UserError(f"{entry.path}: a link to a file that is not there; bring the file back or remove the link")


def unlisted(folder: Path, suffixes: Collection[str], listed: Collection[str]) -> Passed:
    """Files below a folder that could be rows and stand in no list.

    Args:
        listed: real paths.
    """
    passed = Passed(folder)
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            path = os.path.join(here, name)
            if _is_row(name, suffixes) and os.path.realpath(path) not in listed:
                passed.add(path)
    return passed


def differing(names: Mapping[Path, Collection[str]]) -> str | None:
    """What is wrong where two parts have other class folders; None where they are the same.

    Args:
        names: folder of a part to its class names.
    """
    (first, here), (second, there) = list(names.items())
    odd = [
        f"only {folder.name}/ has {some(only)}"
        for folder, only in ((first, sorted(set(here) - set(there))), (second, sorted(set(there) - set(here))))
        if only
    ]
    if not odd:
        return None
    return f"{second}: its class folders are not those of {first}: {'; '.join(odd)}; give both parts one set of names"
