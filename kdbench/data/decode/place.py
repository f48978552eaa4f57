"""Where a data source may look, where it may keep what it decoded, and whom it tells. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.base.progress import Progress


@dataclass(frozen=True)
class Place:
    """Where data come from and go to.

    Attributes:
        folder: the user's data folder, None for the hub.
        cache: folder of decoded data sets.
    """

    folder: Path | None
    cache: Path
    progress: Progress = field(default_factory=Progress.silent)


def find_folder(folder: Path | None, names: Sequence[str]) -> Path | None:
    """The first of the named folders that is there."""
    return next((folder / name for name in names if (folder / name).is_dir()), None) if folder is not None else None
