"""Put in PYTHONPATH of programs under test: at a chosen moment the process is killed, or the disk is full from then on.

``KDBENCH_FAULT`` is JSON: ``event``, an audit event of Python's; ``path``, a pattern found in its first argument;
``nth``, which of these events is meant; ``do``, ``kill`` or ``full``, or ``list`` to tell what is
written in which order; ``mark``, the file it is told in, or one made when a kill strikes, so that of a whole family of
processes one is struck, once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import Any

WRITES = {"os.mkdir", "os.rename"}


def strike(fault: dict[str, Any]) -> None:
    """Arms this process."""
    pattern, left = re.compile(fault["path"]), fault.get("nth", 1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if fault["do"] != "kill":
            made = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if not made and event not in WRITES:
                return
        elif event != fault["event"]:
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike) or not pattern.search(os.fsdecode(arguments[0])):
            return
        if fault["do"] == "list":
            with open(fault["mark"], "a") as file:
                file.write(f"{os.fsdecode(arguments[0])}\n")
            return
        left -= 1
        if left > 0:
            return
        if fault["do"] == "full":
            raise OSError(28, "No space left on device", os.fsdecode(arguments[0]))
        try:
            os.close(os.open(fault["mark"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        if "kdbench.sweep.process" in " ".join(sys.orig_argv):  # as when the machine goes down: its sweep goes too
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if text := os.environ.get("KDBENCH_FAULT"):
    strike(json.loads(text))
