"""Several runs of one configuration in one process, a step in turn.

Small networks are bound by what the host launches, and leave a device idle; runs of other seeds fill it, and share
start-up, rows and teachers. Each computes what it would alone, to the same bits, and leaves the same record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from kdbench.devices import backends
from kdbench.engine.assemble import threads
from kdbench.engine.common import Common
from kdbench.records.files import Record
from kdbench.runs.request import Request
from kdbench.runs.run import turns
from kdbench.runs.turns import Pause


class _Member:
    """A run that takes turns."""

    def __init__(self, request: Request) -> None:
        self.request, self.turns = request, turns(request)
        self._lane = backends.of(request.device).lane(request.device)

    def begin(self) -> Pause | Record:
        """Its first turn."""
        return self._turn(lambda: next(self.turns))

    def go(self, answer: bool = True) -> Pause | Record:
        """Its next turn; the record at its end."""
        return self._turn(lambda: self.turns.send(answer))

    def _turn(self, go: Callable[[], Pause]) -> Pause | Record:
        with self._lane.turn():
            try:
                return go()
            except StopIteration as end:
                record: Record = end.value
                return record


def together(requests: Sequence[Request], at_once: int) -> Generator[tuple[Request, Record | Exception]]:
    """Runs, each with its record as soon as it is written, or with what it raised instead.

    A run begins alone and up to its first step: what all need, such as teachers, is trained once, before turns go on.
    The first that comes to measure its cost waits for that until all others are done, and the others leave it to it.

    Args:
        requests: of one configuration and device, and of as many seeds.
        at_once: how many take turns.

    Raises:
        Lost: the device takes no more work of this process.
    """
    first = requests[0]
    common, backend = Common(), backends.of(first.device)
    begin, going, waiting = deque(requests), deque[_Member](), deque[_Member]()
    measuring = False
    with threads(first.config.task, first.device), ExitStack() as ends:
        while begin or going or waiting:
            begins = bool(begin) and len(going) < at_once
            if begins:
                member = _Member(replace(begin.popleft(), common=common))
                ends.callback(member.turns.close)
            else:
                member = going.popleft() if going else waiting.popleft()
            found: Pause | Record | Exception
            try:
                found = member.begin() if begins else member.go()
                if begins:
                    backend.synchronize(first.device)  # what is made once for all is there before others read it
                if found is Pause.MEASURING and measuring:
                    found = member.go(False)
            except Exception as error:
                if not backend.answers(first.device):
                    raise
                found = error
            if not isinstance(found, Pause):
                yield member.request, found
            elif found is Pause.STEP:
                going.append(member)
            else:
                measuring |= found is Pause.MEASURING
                waiting.append(member)
