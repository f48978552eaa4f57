"""Where a data source may look, where it may keep what it decoded, and whom it tells. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kdbench.progress import Progress


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
