"""Where a run happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.engine.common import Common
from kdbench.parallel.ranks import Ranks


@dataclass(frozen=True)
class RunPlace:
    """Where a run happens.

    Attributes:
        data: the user's data folder, None for the hub.
        folder: the run's own folder.
        ranks: the processes of the run.
        common: what it shares with other runs of its process; None of a run alone.
    """

    device: torch.device
    home: Home
    data: Path | None
    folder: Path
    progress: Progress = field(default_factory=Progress.silent)
    ranks: Ranks = field(default_factory=Ranks)
    common: Common | None = None
