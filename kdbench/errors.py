"""Errors a user can act on: one line on the terminal, an exit code, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2000
"""Characters of a message; a longer one loses its middle."""


class UserError(Exception):
    """Something the user gave is wrong. The message says what, where, the nearest right name and what to do.

    The command line prints it as one line and exits with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:  # what was given may be of any length, a line on a terminal is not
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        super().__init__(message)


def nearest(word: str, known: Iterable[str], n: int = 3) -> str:
    """``" (did you mean 'kd'?)"`` for a mistyped word, or an empty string when nothing is near.

    Args:
        word: what was typed.
        known: the names it could have been.
        n: at most this many suggestions.
    """
    names = list(known)
    close = difflib.get_close_matches(word, names, n=n, cutoff=0.5)
    close += [name for name in names if word and name.startswith(word) and name not in close][: n - len(close)]
    if not close:
        return ""
    return f" (did you mean {' or '.join(repr(name) for name in close)}?)"
