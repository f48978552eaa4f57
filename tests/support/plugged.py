"""A package written by ``kdbench new ... --standalone``, made known as installing it would."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdbench import kinds
from kdbench.base import plugins
from kdbench.data import sources
from kdbench.data.decode import specification
from kdbench.devices import backends
from kdbench.identity import sourcecode
from kdbench.specs import nets, registry

CACHES = (
    registry.method_packages, registry.card, registry.methods, registry.patterns, registry.task_files, registry.task,
    plugins.folders, specification.set_spec, sourcecode._package_digest, sourcecode._code, sourcecode._top,
    nets._plugins, kinds._modules, kinds.kind, kinds.metrics, sources._modules, backends._installed,
)  # fmt: skip


def metadata(folder: Path) -> Path:
    """Puts beside a package what an installer would write from its ``pyproject.toml``; the folder."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    facts = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir()
    facts.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    facts.joinpath("entry_points.txt").write_text("\n".join(lines))
    return folder


@contextmanager
def plugged(*folders: Path) -> Iterator[None]:
    """Packages are installed within the block, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(str(metadata(folder)))
        for cached in CACHES:
            cached.cache_clear()
        try:
            yield
        finally:
            for cached in CACHES:
                cached.cache_clear()


def kdbench(home: Path, *words: str, folders: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """``kdbench ...`` in a process of its own, with packages on its path."""
    paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": paths, "KDBENCH_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "kdbench", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | own, check=False)
