"""``kdbench doctor``: what this machine has."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from kdbench.base.errors import UserError
from kdbench.base.home import Home, data_folder
from kdbench.devices import backends
from kdbench.index.file import StoreLocked
from kdbench.index.store import Store
from kdbench.records.provenance import code
from kdbench.specs import registry


@dataclass(frozen=True)
class Check:
    """One finding; a ``problem`` keeps kdbench from running."""

    state: Literal["ok", "note", "problem"]
    what: str
    found: str


def checks(home: Home, data: Path | None) -> Iterator[Check]:
    """Findings, quick ones first."""
    old = sys.version_info < (3, 11)
    yield Check(
        "problem" if old else "ok", "python", platform.python_version() + (" (3.11 or newer is needed)" if old else "")
    )
    try:
        import torch

        yield Check("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
        yield from _devices()
    except ImportError as error:
        yield Check("problem", "torch", f"cannot be imported ({error})")
    for package in ("timm", "datasets", "hydra-core", "duckdb"):
        try:
            yield Check("ok", package, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check("problem", package, "not installed")
    commit = code()
    yield Check("ok" if commit.commit and not commit.dirty else "note", "code", _code(commit.commit, commit.dirty))
    yield _registry()
    try:
        home.require_writable()
        yield Check("ok", "home", str(home.root))
        yield _index(home)
    except UserError as error:
        yield Check("problem", "home", str(error))
    try:
        folder = data_folder(data)
        yield Check("ok" if folder else "note", "data", str(folder or "no folder named; data sets come from the hub"))
    except UserError as error:
        yield Check("problem", "data", str(error))


def _devices() -> Iterator[Check]:
    """The machine's accelerators; of those that it has and no run can use, the reason."""
    found = []
    for backend in backends.every():
        if backend.on_host or (backend.absent() is not None and not backend.noticed()):
            continue
        try:
            if reason := backend.absent():
                found.append(Check("note", "GPU", f"{backend.title}: {reason}; runs use the CPU"))
                continue
            seen = (f"{backends.written(device)} {backend.model(device)}" for device in backend.devices())
            found.append(Check("ok", "GPU", ", ".join(seen)))
            found += [Check("note", "GPU", line) for line in backend.remarks()]
        except RuntimeError as error:  # of a driver that counts its devices and gives none
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            found.append(Check("note", "GPU", f"{backend.title}: {reason}; add --device cpu"))
    yield from found or [Check("note", "GPU", "none seen by torch; runs use the CPU")]


def _code(commit: str | None, dirty: bool) -> str:
    if commit is None:
        return "not a checkout: records cannot be verified"
    return f"commit {commit[:12]}" + (" with changes: records cannot be verified" if dirty else "")


def _registry() -> Check:
    try:
        return Check("ok", "registry", f"{len(registry.methods())} methods, {len(registry.tasks())} tasks")
    except UserError as error:
        return Check("problem", "registry", str(error))


def _index(home: Home) -> Check:
    if not home.index.exists():
        return Check("note", "index", "none yet")
    try:
        with Store(home.index, read_only=True, wait_s=1.0) as store:
            return Check("ok", "index", f"{len(store.runs())} runs")
    except StoreLocked as error:
        return Check("note", "index", f"{error.held}; meanwhile the records themselves are read")
    except UserError as error:
        return Check("problem", "index", str(error))
