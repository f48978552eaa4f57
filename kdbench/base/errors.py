"""Errors a user can act on: one line on the terminal, an exit code, never a traceback."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

LONGEST = 2000
"""Characters of a message; a longer one loses its middle."""
_KDBENCH = Path(__file__).parents[1]


class UserError(Exception):
    """Something the user gave is wrong. The message says what, where, the nearest right name and what to do.

    The command line prints it as one line and exits with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:  # what was given may be of any length, a line on a terminal is not
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
        super().__init__(printable(message))


def printable(text: object) -> str:
    """A text without the half characters that a file name of another encoding becomes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


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


def described(error: BaseException, *, ours: bool = True) -> str:
    """An exception in one line with the place it came from: ``too wide (my_method/adapter.py, line 12, in losses)``.

    The place is the innermost line of a method's own code, a folder with a card; without one, of the user's, which is
    in no library; else of kdbench; else of all.

    Args:
        ours: whether a place in kdbench or a library is named, too.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > LONGEST // 2:
        text = f"{text[: LONGEST // 4]} … {text[-LONGEST // 4 :]}"
    frames = [(Path(frame.filename), frame) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.msg} ({_short(Path(error.filename))}, line {error.lineno})"
    own = [(path, frame) for path, frame in frames if _method_folder(path) is not None]
    mine = [(path, frame) for path, frame in frames if path.is_relative_to(_KDBENCH)]
    users = [(path, frame) for path, frame in frames if path not in dict(mine) and not _is_library(path)]
    if not (chosen := own or users or (ours and (mine or frames))):
        return text
    path, frame = chosen[-1]
    return f"{text} ({_short(path)}, line {frame.lineno}, in {frame.name})"


def _is_library(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(
        Path(traceback.__file__).parent
    )


def _method_folder(path: Path) -> Path | None:
    """The folder with the card of the method that a file belongs to."""
    return next((folder for folder in list(path.parents)[:3] if (folder / "card.yaml").is_file()), None)


def _short(path: Path) -> str:
    folder = _method_folder(path) or path.parent
    return path.relative_to(folder.parent).as_posix()
