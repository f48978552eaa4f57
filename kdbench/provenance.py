"""Which code made a run: version and commit."""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path

import kdbench

ROOT = Path(kdbench.__file__).resolve().parent.parent
PUBLISHED = ROOT / "leaderboard" / "results"
"""The published records, in a checkout."""


@dataclass(frozen=True)
class Code:
    """``commit`` is None outside a checkout; ``dirty`` is then True, for nobody can tell what ran."""

    commit: str | None
    dirty: bool


@functools.cache
def code() -> Code:
    """The commit this package runs from."""
    if not (ROOT / ".git").exists():
        return Code(None, True)
    try:
        commit = _git("rev-parse", "HEAD")
        return Code(commit, bool(_git("status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return Code(None, True)


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
