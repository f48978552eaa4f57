"""The process that trains, seen from inside: an order a line comes in, an answer a line goes out.

Started as ``python -m kdbench.sweep.process WORKER``, the number of the process that asks.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

from kdbench.base.errors import UserError
from kdbench.base.parent import follow
from kdbench.base.progress import Progress
from kdbench.sweep.order import Answer, TrainOrder
from kdbench.sweep.runner import READY
from kdbench.sweep.state import State


def main() -> None:
    """Answers orders until there are no more, or the worker that gives them is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    follow(int(sys.argv[1]), lambda: os.killpg(0, signal.SIGKILL))  # with all this process started
    import kdbench.runs.run  # noqa: F401  # takes seconds, which are no part of a run's time

    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        print(_answer(TrainOrder.read(line)).text(), file=answers, flush=True)


def _answer(order: TrainOrder) -> Answer:
    from kdbench.devices import backends
    from kdbench.runs import earlier, run
    from kdbench.terminal import tables

    try:
        state = State(order.state)
        request = order.run.request(order.device, Progress([state]))
        state.begin(request.key, str(request.device))
        if (end := order.given_up) is not None:
            record = run.give_up(request, end.status, end.kind, end.message)
        else:
            record = earlier.not_applicable(request) or run.run_seed(request)
        backends.of(request.device).release_memory(request.device)  # others may run beside this idle process
    except run.Busy as error:
        return Answer(outcome="busy", line=str(error))
    except UserError as error:
        return Answer(outcome="refused", line=" ".join(str(error).split()))
    except Exception as error:
        traceback.print_exc()
        return Answer(outcome="refused", line=f"{type(error).__name__}: {error}")
    return Answer(outcome="recorded", status=record.status, line=tables.run_line(record))


if __name__ == "__main__":
    main()
