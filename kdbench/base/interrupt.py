"""Ctrl-C that is never lost: one that a library's clean-up swallowed is raised again at the next step.

Python drops what is raised inside ``__del__`` and the like, a keyboard interrupt too.
"""

from __future__ import annotations

import signal
from types import FrameType

_heard = False


def listen() -> None:
    """From now on interrupts are remembered. Where they are ignored (``nohup``) or handled otherwise, they stay so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _hear)


def check() -> None:
    """Raises the interrupt that was asked for and is not yet raised to the end: called at every step of long work.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    global _heard
    if _heard:
        _heard = False
        raise KeyboardInterrupt


def _hear(number: int, frame: FrameType | None) -> None:
    global _heard
    _heard = True
    raise KeyboardInterrupt
