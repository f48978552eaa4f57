"""Which code made a run: version and commit, of kdbench and of the plug-ins and local folders it took from."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import kdbench
from kdbench.base import plugins
from kdbench.specs import local, registry
from kdbench.specs.config import MethodConfig, RunConfig
from kdbench.specs.local import Local

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
    """An installed distribution, or a local folder or file, that a run took something from."""

    name: str
    version: str
    code: Code


@functools.cache
def code() -> Code:
    """The commit this package runs from."""
    return _state(ROOT, SOURCES) if (ROOT / ".git").exists() else Code(None, True)


def used(config: RunConfig) -> list[Plugin]:
    """The distributions and local folders behind a configuration's method, inner method, task, data set and nets."""
    wanted = [
        *((plugins.METHODS, name) for name in _methods(config.method)),
        (plugins.TASKS, config.task.name),
        (plugins.SETS, config.task.data.source),
        *((plugins.NETS, net) for net in config.nets()),
    ]
    found = {}
    for group, name in wanted:
        for entry in plugins.entries(group):
            if entry.dist is not None and _brings(entry, group, name):
                found[entry.dist.name] = _plugin(entry.dist, entry.value.partition(":")[0])
    found |= {one.said: _local(one, config) for one in local.used(config)}
    return [found[name] for name in sorted(found)]


def _local(one: Local, config: RunConfig) -> Plugin:
    """Dirty unless a commit holds every file of it, which git does not say of files that it ignores."""
    folder, within = (one.path, ".") if one.path.is_dir() else (one.path.parent, one.path.name)
    versions = {"method": lambda: registry.card(one.name).version, "task": lambda: str(config.task.version)}
    version = versions.get(one.kind, lambda: one.digest[:16])()
    state = _state(folder, (within,))
    if not state.dirty:
        files = [file.relative_to(folder).as_posix() for file in one.files()]
        try:
            _git(folder, "ls-files", "--error-unmatch", "--", *files)
        except (OSError, subprocess.SubprocessError):
            state = Code(state.commit, True)
    return Plugin(one.said, version, state)


def _methods(config: MethodConfig) -> Iterator[str]:
    yield config.ref.card.name
    if config.inner is not None:
        yield from _methods(config.inner)


def _brings(entry: metadata.EntryPoint, group: str, name: str) -> bool:
    """A method's or net's entry point has its name; one of tasks or data sets names a folder of their files."""
    if group in (plugins.METHODS, plugins.NETS):
        return entry.name == name
    return (plugins.package_folder(entry.value.partition(":")[0]) / f"{name}.yaml").is_file()


def _plugin(dist: metadata.Distribution, package: str) -> Plugin:
    folder = plugins.module_folder(package)
    state = Code(None, False) if _LIBRARIES & set(folder.parts) else _state(folder, (".",))
    return Plugin(dist.name, dist.version, state)


def _state(folder: Path, within: tuple[str, ...]) -> Code:
    """Commit of the checkout a folder lies in; dirty where a tracked file of it changed, or one within is untracked."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        new = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *within)
        return Code(commit, bool(changed or new))
    except (OSError, subprocess.SubprocessError):
        return Code(None, True)


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
