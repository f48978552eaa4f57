"""The process that trains, seen from inside: an order a line comes in, an answer a line goes out.

Started as ``python -m kdbench.sweep.process WORKER``, the number of the process that asks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.parent import follow
from kdbench.sweep.runner import READY


def main() -> None:
    """Answers orders until there are no more, or the worker that gives them is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    follow(int(sys.argv[1]), lambda: os.killpg(0, signal.SIGKILL))  # with all this process started
    import kdbench.runs.run  # noqa: F401  # takes seconds, which are no part of a run's time

    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    from kdbench.runs import earlier, run
    from kdbench.terminal import tables as console

    try:
        request = _request(order)
        state = {"key": request.key, "device": str(request.device), "since": time.time()}
        write_atomic(Path(order["state"]), json.dumps(state))
        if "give_up" in order:
            record = run.give_up(request, *order["give_up"])
        else:
            record = earlier.not_applicable(request) or run.evaluate(request)
    except run.Busy as error:
        return {"outcome": "busy", "line": str(error)}
    except UserError as error:
        return {"outcome": "refused", "line": " ".join(str(error).split())}
    except Exception as error:
        traceback.print_exc()
        return {"outcome": "refused", "line": f"{type(error).__name__}: {error}"}
    return {"outcome": "recorded", "status": record.status, "line": console.run_line(record)}


def _request(order: dict[str, Any]) -> Any:
    from kdbench.base.home import Home
    from kdbench.devices.machine import pick_device
    from kdbench.runs.request import Request
    from kdbench.specs.config import Match, run_config

    match = Match(**order["match"]) if order["match"] is not None else None
    config = run_config(order["method"], order["task"], order["overrides"], smoke=order["smoke"], match=match)
    return Request(
        config,
        order["seed"],
        pick_device(order["device"]),
        Home(Path(order["home"])),
        Path(order["data"]) if order["data"] is not None else None,
        order["overhead"],
        retry=order["retry"],
    )


if __name__ == "__main__":
    main()
