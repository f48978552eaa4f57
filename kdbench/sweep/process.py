"""The process that trains, seen from inside: an order a line comes in, an answer a line goes out, one for each run.

Started as ``python -m kdbench.sweep.process WORKER``, the number of the process that asks.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from kdbench.base.errors import UserError
from kdbench.base.parent import follow
from kdbench.base.progress import Progress
from kdbench.sweep.order import Answer, TrainOrder
from kdbench.sweep.runner import READY
from kdbench.sweep.state import State

if TYPE_CHECKING:
    from kdbench.records.files import Record


def main() -> None:
    """Answers orders until there are no more, or the worker that gives them is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    follow(int(sys.argv[1]), lambda: os.killpg(0, signal.SIGKILL))  # with all this process started
    import kdbench.runs.run  # noqa: F401  # takes seconds, which are no part of a run's time

    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        for answer in _answers(TrainOrder.read(line)):
            print(answer.text(), file=answers, flush=True)


def _answers(order: TrainOrder) -> Iterator[Answer]:
    """One for each seed, as its run ends."""
    left = list(order.run.seeds)
    try:
        for seed, found in _done(order):
            left.remove(seed)
            yield _answer(seed, found)
    except Exception as error:  # of all that have not ended
        yield from [_answer(seed, error) for seed in left]


def _done(order: TrainOrder) -> Iterator[tuple[int, Record | Exception]]:
    """The runs, each with its record or what it raised."""
    from kdbench.devices import backends
    from kdbench.runs import earlier, run
    from kdbench.runs.together import together

    states = list(map(State, order.states))
    requests = order.run.requests(order.device, [Progress([state]) for state in states])
    device = requests[0].device
    for state, request in zip(states, requests, strict=True):
        state.begin(request.key, str(device))
    if (end := order.given_up) is not None:
        yield from [(one.seed, run.give_up(one, end.status, end.kind, end.message)) for one in requests]
    elif (record := earlier.not_applicable(requests[0])) is not None:
        yield from [(one.seed, record) for one in requests]
    elif len(requests) == 1:
        yield requests[0].seed, run.run_seed(requests[0])
    else:
        left = {one.seed for one in requests}
        with closing(together(requests, len(requests))) as made:
            for one, found in made:
                left.remove(one.seed)
                yield one.seed, found
                if not isinstance(found, Exception) and found.status == "not_applicable":
                    yield from [(seed, found) for seed in left]  # for a reason no seed changes
                    break
    backends.of(device).release_memory(device)  # others may run beside this idle process


def _answer(seed: int, found: Record | Exception) -> Answer:
    from kdbench.runs import run
    from kdbench.terminal import tables

    if isinstance(found, run.Busy):
        return Answer(seed=seed, outcome="busy", line=str(found))
    if isinstance(found, run.Lost):
        return Answer(seed=seed, outcome="died", line=str(found))
    if isinstance(found, UserError):
        return Answer(seed=seed, outcome="refused", line=" ".join(str(found).split()))
    if isinstance(found, Exception):
        traceback.print_exception(found)
        return Answer(seed=seed, outcome="refused", line=f"{type(found).__name__}: {found}")
    return Answer(seed=seed, outcome="recorded", status=found.status, line=tables.run_line(found))


if __name__ == "__main__":
    main()
