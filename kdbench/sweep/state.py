"""How far a job's run is, in a file that the sweep's own process reads."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.progress import Work
from kdbench.watch.lines import Silence

EVERY_S = 1.0
"""Seconds between two states: for each the host waits for the device."""


class State(Silence):
    """Writes ``key``, ``device`` and ``since`` when a run begins, and then where its training stands.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._next = 0.0

    def begin(self, key: str, device: str) -> None:
        """A run begins; its key tells its lock."""
        self._known = {"key": key, "device": device, "since": time.time()}
        write_atomic(self._path, json.dumps(self._known))

    def moved(self, work: Work) -> None:
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + EVERY_S
        work.refresh()
        place = f"{work.epoch}/{work.epochs}" if work.epoch is not None else f"{work.done}/{work.total}"
        self._tell(stage=work.name, place=place, loss=work.loss, score=work.score, left=work.left())

    def paused(self) -> None:
        self._tell(stage="measuring", place="", left=None)

    def _tell(self, **facts: Any) -> None:
        self._known |= facts
        with contextlib.suppress(UserError):  # a full disk: the run will say so itself
            write_atomic(self._path, json.dumps(self._known))
