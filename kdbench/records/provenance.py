"""Which code made a run: version and commit, of kdbench and of the plug-ins it took from."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import kdbench
from kdbench.base import plugins
from kdbench.specs.config import MethodConfig, RunConfig

ROOT = Path(kdbench.__file__).resolve().parent.parent
PUBLISHED = ROOT / "leaderboard" / "results"
"""The published records, in a checkout."""
SOURCES = ("kdbench", "methods", "tasks")
"""Folders in which a file that no commit holds may decide a result."""
_LIBRARIES = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Code:
    """``commit`` is None outside a checkout; ``dirty`` tells that it does not hold all that ran, or nobody can tell."""

    commit: str | None
    dirty: bool


@dataclass(frozen=True)
class Plugin:
    """An installed distribution that a run took something from."""

    name: str
    version: str
    code: Code


@functools.cache
def code() -> Code:
    """The commit this package runs from."""
    return _state(ROOT, SOURCES) if (ROOT / ".git").exists() else Code(None, True)


def used(config: RunConfig) -> list[Plugin]:
    """The distributions behind a configuration's method, the one inside it, its task and its data set."""
    wanted = [
        *((plugins.METHODS, name) for name in _methods(config.method)),
        (plugins.TASKS, config.task.name),
        (plugins.SETS, config.task.data.source),
    ]
    found = {}
    for group, name in wanted:
        for entry in metadata.entry_points(group=group):
            if entry.dist is not None and _brings(entry, group, name):
                found[entry.dist.name] = _plugin(entry.dist, entry.value.partition(":")[0])
    return [found[name] for name in sorted(found)]


def _methods(config: MethodConfig) -> Iterator[str]:
    yield config.ref.card.name
    if config.inner is not None:
        yield from _methods(config.inner)


def _brings(entry: metadata.EntryPoint, group: str, name: str) -> bool:
    """A method's entry point has its name; one of tasks or data sets names a folder of their files."""
    if group == plugins.METHODS:
        return entry.name == name
    return (plugins.package_folder(entry.value.partition(":")[0]) / f"{name}.yaml").is_file()


def _plugin(dist: metadata.Distribution, package: str) -> Plugin:
    folder = plugins.package_folder(package)
    state = Code(None, False) if _LIBRARIES & set(folder.parts) else _state(folder, (".",))
    return Plugin(dist.name, dist.version, state)


def _state(folder: Path, within: tuple[str, ...]) -> Code:
    """Commit of the checkout a folder lies in; dirty where a tracked file of it changed, or one within is untracked."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
        return Code(commit, bool(changed or git("status", "--porcelain", "--untracked-files=all", "--", *within)))
    except (OSError, subprocess.SubprocessError):
        return Code(None, True)
