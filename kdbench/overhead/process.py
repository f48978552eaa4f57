"""The fresh process that measures: ``python -m kdbench.overhead.process PARENT HOME REQUEST RESULT``.

``PARENT`` is the number of the process that asks; both files are JSON. Started by :mod:`kdbench.overhead.measure`, once
for times and counts, and on a GPU once more an arm for its memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.home import Home
from kdbench.base.leftovers import clear_scratch
from kdbench.base.parent import follow


def main() -> None:
    """Measures, and ends with the process that asked, which nobody else would tell that its answer is not wanted."""
    parent, home, request, result = int(sys.argv[1]), Home(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])

    def end() -> None:
        try:
            clear_scratch(home)
        finally:
            os._exit(1)

    follow(parent, end)
    from kdbench.overhead.order import MeasureOrder  # takes seconds, in which the other process may end too
    from kdbench.overhead.worker import run

    try:
        write_atomic(result, run(MeasureOrder.read(request.read_text())).text())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
