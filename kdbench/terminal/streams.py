"""What is printed where the terminal, or a file, takes no UTF-8: the nearest plain letters, never an error."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_ERRORS = "kdbench.plain"
_PLAIN = str.maketrans(
    {
        "±": "+-", "×": "x", "Δ": "delta", "–": "-", "—": "-", "−": "-", "→": "->", "←": "<-", "↑": "up", "↓": "down",
        "…": "...", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "·": "*", "•": "*",
        "ß": "ss", "μ": "u", "µ": "u",
        "λ": "lambda", "τ": "tau", "α": "alpha", "β": "beta", "γ": "gamma",
        "‘": "'", "’": "'", "“": '"', "”": '"',
    }
)  # fmt: skip


def say_anything() -> None:
    """Has standard output and error replace the letters they have no code for."""
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test's or a notebook's own takes anything already
            stream.reconfigure(errors=_ERRORS)


def plain(text: str, encoding: str) -> str:
    """``text`` as a stream of this encoding shows it, so that columns can be laid out by its true width."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return "".join(_shown(letter, encoding) for letter in text)
    except LookupError:
        return text


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_shown(letter, error.encoding) for letter in wrong), error.end


def _shown(letter: str, encoding: str) -> str:
    """A letter, or what comes nearest to it: a word for a sign, the letter without its accent, else ``?``."""
    bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    for form in (letter, letter.translate(_PLAIN), bare):
        try:
            if form and form.encode(encoding):
                return form
        except UnicodeEncodeError:
            continue
    return "?"
