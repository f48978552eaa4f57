"""Processes that work for another end with it: nobody keeps a card busy unseen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

LOOK_S = 0.5
"""How often a process looks whether its parent still lives."""


def follow(parent: int, end: Callable[[], None]) -> None:
    """Calls ``end`` from a thread once ``parent`` is not this process's parent any more."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        end()

    threading.Thread(target=look, daemon=True).start()
