"""The command line in copies of one warm process, for importing torch takes longer than a small run.

``python forked.py`` answers orders; :class:`Warm` is its other end.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

HERE = Path(__file__).parent


class Ended(NamedTuple):
    """How a command ended: its exit code, or minus the signal that ended it, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The last line on standard error, where what a user should know stands."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


class Warm:
    """A process that has everything imported and runs ``kdbench`` in copies of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "forked.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, *words: object, fault: dict[str, Any] | None = None, shift: list[float] | None = None) -> Ended:
        """``kdbench`` with these words.

        Args:
            fault: see ``faults/sitecustomize.py``.
            shift: seconds by which the wall clock is off at each of its readings; the last counts for all that follow.
        """
        out, err = self.folder / "out", self.folder / "err"
        order = {"words": list(map(str, words)), "out": str(out), "err": str(err), "fault": fault, "shift": shift}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def _copy(order: dict[str, Any]) -> int:
    """Runs one order in this process."""
    from kdbench import cli

    for number, name in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if order["shift"] is not None:
        _shift_clock(order["shift"])
    if order["fault"] is not None:
        sys.path.insert(0, str(HERE / "faults"))
        import sitecustomize

        sitecustomize.strike(order["fault"])
    sys.argv = ["kdbench", *order["words"]]
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 70
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


def _shift_clock(by: list[float]) -> None:
    """Sets the wall clock off; the clock that measures durations goes on."""
    from datetime import UTC, datetime, timedelta

    from kdbench.records import files as record

    left = list(by)

    def now() -> str:
        off = left.pop(0) if len(left) > 1 else left[0]
        at = datetime.now(UTC) + timedelta(seconds=off)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    record.now = now


def main() -> None:
    """Answers orders until there are none."""
    import torch

    import kdbench

    torch.set_num_threads(1)
    for found in pkgutil.walk_packages(kdbench.__path__, "kdbench."):
        if found.name.rpartition(".")[2] != "__main__":
            with contextlib.suppress(ImportError):  # of what is not installed here
                importlib.import_module(found.name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_copy(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(status, file=answers, flush=True)


if __name__ == "__main__":
    main()
