"""The process that trains, seen from the worker that owns it: asked for one run after the other, killed at need.

Training has a process of its own so that a run which hangs or takes its process down costs nothing but itself; the
process stays for the worker's next run, for importing torch takes longer than a small run.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kdbench.sweep.order import Answer, TrainOrder

READY = "ready"


class TimedOut(Exception):
    """No answer in time."""


class Died(Exception):
    """The process ended without an answer; the message says how."""


class Runner:
    """A process that trains.

    Args:
        device: what its runs take place on; a process holds memory of its card, so it serves no other.
        threads: of torch.
        visible: variables by which backends hide devices as the sweep's own process has them, None for one that is not
            set there: launchers change them.
        log: where everything goes that the process prints.
    """

    def __init__(self, device: str, threads: int, visible: dict[str, str | None], log: Path) -> None:
        self._serves = (device, threads)
        self._ready, self._read = False, b""
        env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        env |= {name: value for name, value in visible.items() if value is not None}
        env = {name: value for name, value in env.items() if visible.get(name, value) is not None}
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # -P: this kdbench, not one that lies in the working directory
                [sys.executable, "-P", "-m", "kdbench.sweep.process", str(os.getpid())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=env,
                start_new_session=True,  # so that it can be killed with all it started
            )  # fmt: skip

    def serves(self, device: str, threads: int) -> bool:
        """Whether it can take runs on this device with so many threads."""
        return self._serves == (device, threads) and self._process.poll() is None

    def ask(self, order: TrainOrder, timeout: float | None) -> Iterator[Answer]:
        """Has runs done; what became of each, as it ends.

        Args:
            timeout: seconds for all, from when the process is ready; None for no limit.

        Raises:
            TimedOut: no answer in time; the process still runs.
            Died: the process ended.
        """
        if not self._ready:
            self._ready = self._line(None) == READY
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(order.text().encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in order.run.seeds:
            yield Answer.read(self._line(deadline))

    def kill(self) -> None:
        """Ends it and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self, deadline: float | None) -> str:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while b"\n" not in self._read:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([handle], [], [], left)[0]:
                raise TimedOut
            read = os.read(handle, 65536)
            if not read:
                raise self._death()
            self._read += read
        line, _, self._read = self._read.partition(b"\n")
        return line.decode().strip()

    def _death(self) -> Died:
        code = self._process.wait()
        if code < 0:
            return Died(f"its process was killed by signal {-code} ({signal.Signals(-code).name})")
        return Died(f"its process ended with code {code}")
